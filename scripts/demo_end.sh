# Ends what scripts/demo.sh has left up in a folder, and removes it: sh scripts/demo_end.sh FOLDER.
set -eu

folder=${1:?which folder? sh scripts/demo_end.sh FOLDER}
bin=$(dirname "$0")/../.venv/bin
PATH=$(cd "$bin" 2>/dev/null && pwd || echo "$bin"):$PATH

# The sandbox keeps the image in the folder, and refuses to remove it; Docker keeps it in Docker. The
# client must be this platform's: any other has images of its own.
if exports=$(neuro-local --state-dir "$folder/platform" env 2>/dev/null); then
    eval "$exports"
    neuro image rm image:neuro-demo >/dev/null 2>&1 || :
fi
neuro-local --state-dir "$folder/platform" down
rm -rf "$folder"
