# The whole cycle of a project on neuro-local, in a temporary folder that goes again in the end;
# with KEEP=1 the project and its pages stay up, and with NEURO_LOCAL_ENGINE=docker its jobs are
# containers. Run by `make demo`, with the commands cookiecutter, neuro-local, neuro and python of
# its environment on PATH.
set -eu

# The project's own make starts afresh, whatever options this one was given.
unset MAKEFLAGS MFLAGS MAKELEVEL

template=$(pwd)
# What a project's requirements bring changes with time; the demo shall not. (Containers see none
# of this machine's variables.)
PIP_CONSTRAINT=$template/tests/project-constraints.txt
export PIP_CONSTRAINT
folder=$(mktemp -d "${TMPDIR:-/tmp}/neuro-demo.XXXXXX")

take_down() {
    status=$?
    trap - EXIT
    trap '' INT TERM
    say 'Taking everything down'
    sh "$template/scripts/demo_end.sh" "$folder" || status=1
    exit "$status"
}

say() {
    printf '\n== %s\n' "$1"
}

# Start the other pages, print all addresses and how to end it all, and leave everything up.
keep() {
    say 'KEEP=1: the project and its pages stay up'
    run make run_jupyter BROWSE=
    run make run_filebrowser BROWSE=
    run make run_tensorboard BROWSE=
    trap - EXIT
    cat <<TEXT

The project is $PWD. In a new shell:
  cd '$PWD' && eval "\$('$template/.venv/bin/neuro-local' --state-dir '$folder/platform' env)" && PATH='$template/.venv/bin':\$PATH
Each address above opens once; for a new one run the same make target again.
To end it all:
  sh '$template/scripts/demo_end.sh' '$folder'
TEXT
}

run() {
    printf '$ %s\n' "$*"
    "$@"
}

trap 'exit 130' INT
trap 'exit 143' TERM
trap take_down EXIT

say 'Render a project from the template'
run cookiecutter --no-input --output-dir "$folder" "$template" project_name='Neuro Demo'
cd "$folder/neuro-demo"
# Some data, made early: the client takes files that are seconds old at their upload for changed.
printf 'a line of data\n' > data/notes.txt

say 'Start a platform on this machine, and point the neuro client of this shell at it'
run neuro-local --state-dir "$folder/platform" up
exports=$(neuro-local --state-dir "$folder/platform" env)
eval "$exports"

say 'Is everything ready?'
# Only `make setup` is still missing, as it says itself.
run make check || true

say 'Install requirements/ into the image of the project (once; about a minute)'
run make setup

say 'Upload code, data and notebooks'
run make upload

say 'Train: a job on the platform, its log here, its exit code that of make'
run make run_training RUN=demo TRAIN_ARGS='--epochs 5'

say 'TensorBoard, in its own image (fetched or made once, at first use), shows that training'
shown=$folder/tensorboard
run make run_tensorboard BROWSE= | tee "$shown"
python "$template/scripts/tensorboard_shows.py" demo <"$shown"

say 'What of this project runs, and since when?'
run make ps

say 'Bring the results home'
run make download_results
find results -type f | sort
tail -n 12 results/demo/metrics.json

say 'Upload the data again: nothing has changed, so nothing moves'
marker=$folder/before
touch "$marker"
run make upload_data
moved=$(find "$folder/platform/storage/user/neuro-demo/data" -type f -newer "$marker" | wc -l)
echo "files moved: $((moved))"
test "$((moved))" -eq 0

if [ "${KEEP:-}" = 1 ]; then
    keep
    exit 0
fi

say 'Clean the storage, end what runs'
run make clean YES=1
run make kill

say 'That was the whole cycle. Next, for a project of your own:'
cat <<TEXT
  $template/.venv/bin/cookiecutter $template
  $template/.venv/bin/neuro-local up, then the eval line that it prints
  make help in the new project
TEXT
