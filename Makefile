# Everything sets itself up: Python 3.11+, git and make are enough.
.DEFAULT_GOAL := help
PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
RUN := .venv/bin/python -m

.PHONY: help
help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

.PHONY: demo
demo: runtime  ## Run every integration against local stand-ins; Ctrl-C stops all of it
	@exec $(RUN) sandbox.demo

.PHONY: demo-check
demo-check: runtime  ## Start the demo, wait until each integration has worked once, stop
	@exec $(RUN) sandbox.demo --check

.PHONY: demo-clean
demo-clean:  ## Forget everything the demo has kept
	rm -rf .demo .demo-check

.PHONY: send-sample
send-sample: runtime  ## Send a signed sample event to the gateway: make send-sample EVENT=push
	@$(RUN) sandbox.send_sample $(EVENT)

.PHONY: test
test: environment  ## Run all tests
	$(RUN) pytest -n 2 --dist loadfile --max-worker-restart=0

.PHONY: check
check: environment  ## Lint, types, layers, spelling
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	.venv/bin/codespell

.PHONY: install
install: $(UV)  ## Install for production, with extras if any: make install EXTRAS="kafka mail"
	@$(UV) sync --locked --no-default-groups --inexact --compile-bytecode $(addprefix --extra ,$(EXTRAS))

.PHONY: blocks
blocks: runtime  ## Make the block types known to the Prefect server of PREFECT_API_URL
	@$(RUN) deployments.register_blocks

.PHONY: deploy
deploy: runtime  ## Deploy everything, or INTEGRATIONS="one another", to the server of PREFECT_API_URL
	@$(RUN) deployments.deploy $(if $(INTEGRATIONS),--integrations $(INTEGRATIONS))

.PHONY: show
show: runtime  ## Print all there is of an integration: make show INTEGRATION=github_events
	@$(RUN) deployments.show $(INTEGRATION)

.PHONY: docs
docs: runtime  ## Write the tables of README and guides that follow from the declarations
	@$(RUN) deployments.documents

.PHONY: runtime
runtime: $(UV)
	@$(UV) sync --quiet --locked --no-default-groups --group sandbox --inexact --compile-bytecode

.PHONY: environment
environment: $(UV)
	@$(UV) sync --quiet --locked --inexact --compile-bytecode

.uv/bin/uv: scripts/install_uv.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which with make PYTHON=python3.12 …")'
	@$(PYTHON) scripts/install_uv.py
	@touch $@
