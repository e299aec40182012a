# Finds or installs the Chromium that the browser tests drive; Playwright's own is not used.
#   sh scripts/chromium.sh find      print the program, or fail
#   sh scripts/chromium.sh install   install Debian's if there is none and this user may
# The variable CHROMIUM names another one.
set -eu
. "$(dirname "$0")/debian.sh"

find_chromium() {
    for name in ${CHROMIUM:+"$CHROMIUM"} chromium chromium-browser google-chrome google-chrome-stable; do
        # Asked for its version, since Ubuntu's chromium-browser is often a stub that only says how to get it.
        if "$name" --version >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
        [ "$name" != "${CHROMIUM:-}" ] || return 1
    done
    return 1
}

install_chromium() {
    [ -z "${CHROMIUM:-}" ] && install_debian chromium 'the browser tests' && find_chromium >/dev/null
}

case ${1:-} in
find) find_chromium ;;
install)
    find_chromium >/dev/null || install_chromium ||
        echo 'The browser tests need Chromium: install chromium (Debian), or name one in the variable CHROMIUM.' >&2
    ;;
*)
    echo 'usage: sh scripts/chromium.sh find|install' >&2
    exit 2
    ;;
esac
