"""Last touches; nothing here makes generation fail. Standard library only, Python 3.9 or newer."""

import json
import os
import shlex
import subprocess

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")


def place_gitignore():
    """The template keeps it under another name, so that it can keep files in data/ itself."""
    if os.path.exists(".gitignore"):  # rendered again over a project: what is there is the user's
        os.remove("_gitignore")
    else:
        os.replace("_gitignore", ".gitignore")


def is_here(top):
    """Whether the path, as git prints it, is that of this folder."""
    return os.path.realpath(top.decode(errors="replace").strip()) == os.path.realpath(".")


def git(*arguments):
    return subprocess.run(
        ("git", *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


def init_git():
    """Make a repository on branch `main`, and return one honest line about it."""
    later = "run `git init` in it when you want one."
    try:
        inside = git("rev-parse", "--show-toplevel")
        if inside.returncode == 0 and is_here(inside.stdout):
            return "Git: the repository that was here stays as it is."
        if inside.returncode == 0:
            return "Git: the project lies inside an existing repository, so it got none of its own."
        done = git("init", "--initial-branch=main").returncode == 0
        if not done:  # git before 2.28 knows no --initial-branch
            done = git("init").returncode == 0
            done = done and git("symbolic-ref", "HEAD", "refs/heads/main").returncode == 0
        if not done:
            return f"Git: `git init` failed, so the project is no repository; {later}"
        if git("var", "GIT_AUTHOR_IDENT").returncode != 0:
            return (
                "Git: an empty repository on branch main; before you commit, tell git who you are: "
                "git config --global user.name / user.email"
            )
        return "Git: an empty repository on branch main; nothing is committed yet."
    except OSError:
        return f"Git: not found, so the project is no repository; {later}"


def where():
    """This folder, as the user gets to it: seen from the shell that cookiecutter was started in."""
    slug = ANSWERS["project_slug"]
    beside = os.path.join(os.environ.get("PWD", ""), slug)
    return slug if os.path.realpath(beside) == os.path.realpath(".") else os.getcwd()


def main():
    place_gitignore()
    print(init_git())
    folder = where()
    commands = f"cd {shlex.quote(folder)} && make login && make setup && make upload"
    print(f"Created {folder}/. Next: {commands}")
    print("`make` lists everything; without an account, README.md names neuro-local.")


if __name__ == "__main__":
    main()
