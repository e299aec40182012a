# How the Makefile's targets do their work: values as typed, quoting, checks before any call, and what to say when a
# call fails. It works with GNU make 3.81 and later, and any sh.

# == Values

define NEWLINE


endef
# What comes from the command line or the environment is taken as typed: make expands nothing in it, here or for its
# children. NEURO, RUN_EXTRA and PYTHON alone are shell text; `_client` sees that WORDS mean nothing to a shell.
WORDS = LOGIN_URL BASE_IMAGE IMAGE JUPYTER_IMAGE TENSORBOARD_IMAGE FILEBROWSER_IMAGE \
	PRESET LIFE_SPAN SETUP_LIFE_SPAN HTTP_AUTH LOCAL_PORT REMOTE_PORT
TYPED = $(WORDS) PROJECT_STORAGE DATA_STORAGE TRAIN_CMD TRAIN_ARGS RUN UPLOAD_CODE FULL YES BROWSE
FROZEN := $(foreach name,$(TYPED),\
	$(if $(filter environment% command,$(firstword $(origin $(name)))),$(eval override $(name) := $$(value $(name)))) \
	$(if $(findstring $(NEWLINE),$(value $(name))),$(error $(name) must not hold a line break: write it on one line)))
$(if $(filter-out 1,$(FULL) $(YES)),$(error FULL and YES are 1 or nothing))
$(if $(filter-out yes no,$(UPLOAD_CODE) $(BROWSE)),$(error UPLOAD_CODE and BROWSE are yes or no))
# Git for Windows would rewrite /project.
export MSYS_NO_PATHCONV = 1

COMMAND = $(value TRAIN_CMD)$(if $(value TRAIN_ARGS), $(value TRAIN_ARGS))
CONTINUE = $(if $(filter 1,$(FULL)),,--continue)
UPDATE = $(if $(filter 1,$(FULL)),,--update)
DATA_INSIDE = $(filter $(PROJECT_STORAGE)/%,$(DATA_STORAGE))
NO_TOKEN = $(if $(filter --http-auth,$(HTTP_AUTH)),--IdentityProvider.token=)
# The job of run_NAME: NAME-PROJECT.
JOB = $(@:run_%=%)-$(PROJECT)

# == Words of the shell

# $(call quote,text): one word, whatever the text holds.
quote = '$(subst ','\'',$(1))'
# command $(call or_say,text): if the command fails, say what to do and keep its exit code.
or_say = || { code=$$?; echo '$@: $(1)' >&2; exit $$code; }
# $(call refuse,text)
refuse = { echo '$@: $(1)' >&2; exit 1; }
UPLOAD_FAILED = $(call or_say,the upload is not complete; see the message above then run the same again.)
DOWNLOAD_FAILED = $(call or_say,the download is not complete; see the message above; \
	if the folder is not on storage there is nothing to bring.)
LIST_FAILED = $(call or_say,could not list the jobs; see the message above; `make check` tells more.)
BAD_WORD = This must be one word of letters, digits and @ : / . _ = + - (HTTP_AUTH: --http-auth or --no-http-auth): $$word
BAD_STORAGE = PROJECT_STORAGE and DATA_STORAGE must look like storage:folder/folder (letters, digits, . _ -), not '$$uri'.
BAD_NAME = The job name '$$name' does not fit: RUN must be of a-z, 0-9 and single hyphens, and the whole name at most 40 \
	long, as in RUN=lr-01
# Does $$name fit the platform's rule for job names?
name_fits = LC_ALL=C; case $$name in [!a-z]*|*[!a-z0-9-]*|*--*|*-) false;; esac && [ $${\#name} -le 40 ]

# == What targets ask first

.PHONY: _client _storage _run _command _outdated
_client:
	@command -v $(firstword $(NEURO)) >/dev/null || \
	{ echo 'The client `$(firstword $(NEURO))` is not installed: pip install apolo-cli' >&2; exit 127; }
	@LC_ALL=C; for word in $(foreach name,$(WORDS),$(call quote,$(name)=$(strip $($(name))))); do case $$word in \
	LOGIN_URL=|HTTP_AUTH=|HTTP_AUTH=--http-auth|HTTP_AUTH=--no-http-auth) ;; \
	*[!A-Za-z0-9@:/._=+-]*|*=|*=-*|HTTP_AUTH=*) printf '%s\n' "$(BAD_WORD)" >&2; exit 1;; esac; done
_storage: _client
	@LC_ALL=C; for uri in $(call quote,$(PROJECT_STORAGE)) $(call quote,$(DATA_STORAGE)); do case $$uri in \
	*[!A-Za-z0-9:/._-]*|*:*:*|*[:/].*|*/) false;; storage://?*/?*) ;; storage://*) false;; storage:?*) ;; *) false;; \
	esac || { printf '%s\n' "$(BAD_STORAGE)" >&2; exit 1; }; done
_run:
	@name=$(call quote,$(TRAINING)); $(name_fits) || { printf '%s\n' "$(BAD_NAME)" >&2; exit 1; }
# The platform splits the command as a shell does: every quote and backslash needs its partner.
_command:
	@part="\\\\.|'[^']*'|\"([^\"\\\\]|\\\\.)*\""; printf '%s\n' $(call quote,$(COMMAND)) | \
	LC_ALL=C grep -Eqx "[[:space:]]*([^'\"\\\\[:space:]]|$$part)([^'\"\\\\]|$$part)*" || \
	{ echo 'TRAIN_CMD and TRAIN_ARGS must be words in which each quote is closed, as in --note "a b"' >&2; exit 1; }

check_all = bad=0; say() { printf '%-8s %s\n' "$$@"; }; problem() { bad=1; say problem "$$1" >&2; }; \
	if version=$$($(NEURO) --version); then say ok "client: $$version"; \
	else problem 'the client does not start: pip install --upgrade apolo-cli'; fi; \
	if config=$$(COLUMNS=300 $(NEURO) config show) && $(NEURO) --quiet ps $(TAG) >/dev/null; then \
	say ok "login: $$(printf '%s\n' "$$config" | \
	awk '/^ *(User Name|Current Cluster) / { printf "%s: %s  ", $$2, $$NF }')"; \
	presets=$$(printf '%s\n' "$$config" | awk '$$1 == "Name" { t = NR + 1 } t && NR > t { printf "%s ", $$1 }'); \
	case " $$presets" in *' $(PRESET) '*) say ok 'preset: $(PRESET)';; \
	*) problem "there is no preset $(PRESET); set PRESET in the Makefile to one of: $$presets";; esac; \
	else problem 'not logged in or no connection (the client says above): make login'; fi; \
	name=$(call quote,$(TRAINING)); if $(name_fits); then say ok "names: $$name"; \
	else problem "the job name $$name does not fit: choose a shorter RUN of a-z 0-9 and hyphens"; fi; \
	if $(if $(IMAGE_READY),$(MAKE_COMMAND) --question $(STAMP) >/dev/null 2>&1,:); then say ok 'image: $(IMAGE)'; \
	else problem 'the image is not built from requirements/ as they are now: make setup'; fi; \
	exit $$bad

# == The image

# `make setup` leaves a stamp: what the image is made from and, as far as the environment tells, on which platform. One
# that tells of others is as good as none. Only the project's own image needs it.
STAMP = .setup_done
MADE = $(BASE_IMAGE) $(IMAGE) $(value APOLO_CONFIG)
OUTDATED = $(if $(findstring |$(MADE)|,|$(shell cat $(STAMP) 2>/dev/null)|),,_outdated)
IMAGE_READY = $(if $(filter image:$(PROJECT),$(IMAGE)),$(STAMP))
SETUP_FIRST = The image of the project is missing or older than requirements/, or made from another BASE_IMAGE or \
	on another platform: run `make setup`.

# Any target but setup that needs the image learns here that it is missing or older than what it is made from.
$(STAMP): $(wildcard requirements/*.txt) requirements/install.sh $(OUTDATED)
	@$(if $(filter setup,$(MAKECMDGOALS)),:,echo '$(SETUP_FIRST)' >&2; exit 1)
	@tag=; rm -f $@; printf '%s\n' $(call quote,$(MADE)) >$@.new; failed() { \
	code=$$?; trap '' INT TERM HUP; trap - EXIT; rm -f $@.new; \
	[ -z "$$tag" ] || { ids=$$($(NEURO) --quiet ps --tag $$tag) && { [ -z "$$ids" ] || $(NEURO) kill $$ids; }; } || \
	echo 'setup: its job may still be running: run `make kill`.' >&2; \
	echo "setup: failed while $$step; see the message above then run make setup again." >&2; exit $$code; }; \
	trap 'exit 130' INT TERM HUP; trap failed EXIT; set -e; \
	step='reading requirements/'; sh requirements/install.sh check; \
	step='copying requirements/ to storage'; $(NEURO) mkdir --parents $(PROJECT_STORAGE); \
	$(NEURO) cp --recursive --target-directory $(PROJECT_STORAGE) requirements; \
	step='starting a job from $(BASE_IMAGE)'; tag=setup:$$(date +%Y%m%d-%H%M%S)-$$$$; \
	$(NEURO) run --detach --name setup-$(PROJECT) $(TAG) --tag $$tag --preset $(PRESET) \
	--life-span $(SETUP_LIFE_SPAN) --volume $(PROJECT_STORAGE)/requirements:/project/requirements:ro \
	--entrypoint 'sleep 86400' $(RUN_EXTRA) $(BASE_IMAGE); \
	step='installing requirements/'; \
	$(NEURO) --quiet exec --no-tty setup-$(PROJECT) 'sh /project/requirements/install.sh'; \
	step='saving the image'; $(NEURO) save setup-$(PROJECT) $(IMAGE); \
	step='stopping the job'; $(NEURO) kill setup-$(PROJECT); trap - EXIT; mv $@.new $@

# == Storage

# $(call start_upload,folders,URIs): refuse before any call, then make the folders that `cp` needs.
start_upload = for folder in $(1); do [ -d $$folder ] || \
	{ echo "$@: there is no folder $$folder/ here: create it or run make in the project folder." >&2; exit 1; }; done; \
	! LC_ALL=C grep -En '^!|^[^\#].*[[:blank:]][^[:blank:]]' .neuroignore 2>/dev/null || \
	$(call refuse,.neuroignore cannot hold the lines above: a pattern has no blank in it and no ! before it.); \
	$(NEURO) mkdir --parents $(2) $(UPLOAD_FAILED)
# The older client reads a .neuroignore only inside the folder it copies: hand it the patterns; `set -f` keeps their stars.
copy = set -f; $(NEURO) cp --recursive \
	$$(cat .neuroignore 2>/dev/null | tr -d '\r' | sed -n 's/^[^\# ]/--exclude=&/p')
copy_code = $(copy) --target-directory $(PROJECT_STORAGE) code $(UPLOAD_FAILED); echo 'On storage now: code'
copy_data = $(copy) $(CONTINUE) --no-target-directory data $(DATA_STORAGE) $(UPLOAD_FAILED); \
	echo 'On storage now: data'
# What Jupyter saved there in the meantime is newer than what lies here, and stays.
copy_notebooks = $(copy) $(UPDATE) --target-directory $(PROJECT_STORAGE) notebooks $(UPLOAD_FAILED); \
	echo 'On storage now: notebooks$(if $(UPDATE),; one that is newer there stays: make download_notebooks)'

# The client writes a file piece by piece: let it do so beside notebooks/, then move in what changed, whole files only.
bring_notebooks = trap 'rm -rf .notebooks.new' EXIT; trap 'exit 130' INT TERM HUP; \
	rm -rf .notebooks.new; mkdir -p notebooks; cp -Rp notebooks .notebooks.new; \
	$(NEURO) cp --recursive --update --no-target-directory $(PROJECT_STORAGE)/notebooks .notebooks.new \
	$(DOWNLOAD_FAILED); \
	(cd .notebooks.new && find . -type f -exec sh -c 'for new; do old=../notebooks/$$new; \
	cmp -s "$$new" "$$old" 2>/dev/null || [ "$$old" -nt "$$new" ] || { mkdir -p "$${old%/*}" && \
	{ [ ! -e "$$old" ] || cp -p "$$old" "$$old~"; } && mv "$$new" "$$old" && \
	printf "Brought: %s\\n" "$${new\#./}"; } || exit; done' sh {} +) \
	$(call or_say,could not move all notebooks into notebooks/; see the message above.)

# $(call clean,URIs): `rm` of a missing path fails like any other failure, while a pattern that matches nothing succeeds:
# storage:[p]roject/[d]ata, or for an absolute URI storage:/team/[p]roject/data.
clean = set -f; echo 'Deleting for good:'; printf '  %s\n' $(1); \
	if [ -t 0 ] && [ $(call quote,$(YES)) != 1 ]; then printf 'Continue? [y/N] '; read -r answer || :; \
	case $$answer in [yY]|[yY][eE][sS]) ;; *) $(call refuse,not confirmed so nothing was deleted.);; esac; fi; \
	$(NEURO) rm --recursive $$(printf '%s\n' $(1) | \
	sed -e '/:\//!s,\([:/]\)\([^/]\),\1[\2],g' -e '/:\//s,/\([^/]\)\([^/]*/[^/]*\)$$,/[\1]\2,') \
	$(call or_say,could not delete all of it; see the message above then run it again.); \
	$(NEURO) mkdir --parents $(1) $(call or_say,deleted but could not make the empty folders; the next upload will.); \
	echo 'Done: the folders are empty.'

# == Jobs

# $(call start,options and image): unless it runs already.
start = ids=$$($(NEURO) --quiet ps --name $(JOB)) $(LIST_FAILED); \
	if [ -n "$$ids" ]; then echo '$(JOB) runs already; to end it: make $(@:run_%=kill_%)'; else \
	$(NEURO) run --detach --name $(JOB) $(TAG) --life-span $(LIFE_SPAN) $(1) \
	$(call or_say,not started; see the message above.); \
	echo '$(JOB) runs for $(LIFE_SPAN) at most; to end it: make $(@:run_%=kill_%)'; fi
# Its page: open it, or print the address on one line.
show_page = $(if $(filter yes,$(BROWSE)),COLUMNS=300 $(NEURO) job browse $(JOB) $(NO_PAGE),\
	said=$$(COLUMNS=300 $(NEURO) status $(JOB)) $(NO_PAGE); \
	url=$$(printf '%s\n' "$$said" | sed -n 's/^.*Http URL *\([^ ]*\).*/\1/p'); \
	[ -n "$$url" ] && echo "Open in a browser: $$url" $(NO_PAGE))
NO_PAGE = $(call or_say,no address to open; see the message above: did the job end? `$(NEURO) logs $(JOB)` tells why.)

# $(call runs,job,what to do when it does not)
runs = ids=$$($(NEURO) --quiet ps --name $(1)) $(LIST_FAILED); \
	[ -n "$$ids" ] || $(call refuse,it does not run: $(2))
# $(call connect,job,what to do when it does not run). The shell's own exit code says nothing about the target; the
# client's, which are those of sysexits.h, do.
connect = [ -t 0 ] || $(call refuse,a shell needs a terminal.); $(call runs,$(1),$(2)); \
	$(NEURO) --quiet exec --tty $(1) bash || { code=$$?; [ $$code -lt 64 ] || [ $$code -gt 78 ] || \
	{ echo '$@: no shell or the connection to it broke; see the message above.' >&2; exit $$code; }; }
# $(call kill,filter): look first, so that "nothing runs" is success and a failing client is not.
kill = jobs=$$(COLUMNS=300 $(NEURO) ps --format 'id name' $(1)) $(LIST_FAILED); \
	jobs=$$(printf '%s\n' "$$jobs" | grep '^ *job-'); \
	if [ -z "$$jobs" ]; then echo 'Nothing runs: nothing to kill.'; else \
	$(NEURO) kill $$(printf '%s\n' "$$jobs" | awk '{ print $$1 }') \
	$(call or_say,could not kill all of them; see the message above and `make ps`.); \
	printf '%s\n' "$$jobs" | awk '{ print "Killed: " $$NF }'; fi

# == The training

RUNS_ON = while `make ps` lists the training it runs on: `make logs_training$(SAME)` shows its log and \
	`make kill_training$(SAME)` ends it.
LOG_FAILED = $(call or_say,no log to show or it broke off; see above; $(RUNS_ON))
begin_watching = dir=$$(mktemp -d) $(call or_say,could not make a temporary folder; see the message above.); \
	leave() { echo '$@: interrupted; $(RUNS_ON)' >&2; exit 130; }; \
	trap 'rm -rf "$$dir"' EXIT; trap leave INT TERM HUP
# $(call follow_log,job): shows it until the job has ended; $$end is how, $$other is set if the log is not what was shown.
# The newer client takes a connection that broke for the log's end. So see whether the job has ended too, for which a
# platform may need a moment, and then read the log again and show the rest.
follow_log = { $(NEURO) --quiet logs $(1); echo $$? >"$$dir/code"; } | tee "$$dir/shown"; \
	(exit $$(cat "$$dir/code")) $(LOG_FAILED); \
	for moment in 1 2 3; do said=$$(COLUMNS=300 $(NEURO) status $(1)) $(LOG_FAILED); \
	end=$$(printf '%s\n' "$$said" | sed -n 's/^ *Status  *\(JobStatus\.\)*//p' | head -n 1 | tr A-Z a-z); \
	case $$end in running*|pending*|suspended*) sleep 1;; *) break;; esac; done; \
	case $$end in running*|pending*|suspended*) $(call refuse,the log broke off; $(RUNS_ON));; \
	'') $(call refuse,whether the training has ended is unknown; see `$(NEURO) status $(TRAINING)`.);; esac; \
	$(NEURO) --quiet logs $(1) >"$$dir/again" $(LOG_FAILED); \
	other=; size=$$(($$(wc -c <"$$dir/shown"))); [ $$(wc -c <"$$dir/again") -le $$size ] || \
	if head -c $$size "$$dir/again" 2>/dev/null | cmp -s - "$$dir/shown"; then tail -c +$$((size + 1)) "$$dir/again"; \
	else other=yes; fi
# neuro run --detach; $(trained_or_say): its exit code tells nothing that lasts, since it fails for a training that failed
# at once and for a connection that broke, too. What counts is whether there is a job, and how that ended.
trained_or_say = code=$$?; job=$$($(NEURO) --quiet ps --all --tag $$tag) \
	$(call or_say,whether the training began is unknown; see above; $(RUNS_ON)); \
	[ -n "$$job" ] || { echo '$@: the training did not start; see the message above.' >&2; exit $$((code ? code : 1)); }; \
	$(call follow_log,$$job); \
	[ -z "$$other" ] || echo '$@: the log above is not whole: make logs_training$(SAME) shows all of it.' >&2; \
	code=$$(printf '%s\n' "$$said" | sed -n 's/^ *Exit code  *\([1-9][0-9]*\) *$$/\1/p' | tail -n 1); \
	case $$end in succeeded*) ;; \
	failed*) echo '$@: the training failed; its log is above: '"$$end" >&2; exit $${code:-1};; \
	*) $(call refuse,the training did not run to its end: it was killed or ran out of its life-span.);; esac

# $(call run_here,command): split as the platform does it, without a shell; `python` is that of PYTHON.
run_here = cd code && $(PYTHON) -c 'import os, shlex, shutil, sys; a = shlex.split(sys.argv[1]); \
	a[0] = sys.executable if a[0] == "python" else a[0]; \
	shutil.which(a[0]) or sys.exit("there is no program " + ascii(a[0])); os.execvp(a[0], a)' $(call quote,$(1))
