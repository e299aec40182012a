# Finds or installs the Chromium that the browser tests drive; Playwright's own is not used.
#   sh scripts/chromium.sh find      print the program, or fail
#   sh scripts/chromium.sh install   install Debian's if there is none and this user may
# The variable CHROMIUM names another one.
set -eu

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
    [ -z "${CHROMIUM:-}" ] && command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif sudo -n true 2>/dev/null; then
        as_root='sudo -n'
    else
        return 1
    fi
    echo 'Installing chromium for the browser tests (once; about a minute)'
    $as_root apt-get update --quiet=2 &&
        $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install --quiet=2 --yes --no-install-recommends chromium >/dev/null &&
        find_chromium >/dev/null
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
