# Everything runs in .venv, built from the lock: `make run` for users, `make test` for developers.
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
BENCHMARKS := $(filter-out $(patsubst %,benchmarks/%.py,common compression contenders cut datasets gpu networks peers sets text_encoders text_peers text_sets throughput train_fasttext),$(wildcard benchmarks/*.py))
SITE := -c 'import site; print(site.getsitepackages()[0])'
UV := uv -q pip compile --python-version 3.11 --generate-hashes --no-strip-extras --no-annotate \
	--no-header --no-emit-index-url pyproject.toml

.PHONY: run test fast docs ui bench compression throughput text_peers networks datasets lock clean

run: .venv/run  ## obtain Fashion-MNIST and run the whole pipeline
	modelpress fetch fashion-mnist
	modelpress run

test: .venv/test  ## lint, types, the docs and all tests
	ruff check .
	ruff format --check .
	mypy
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet
	pytest -n 4 --dist loadfile --no-loadscope-reorder

fast: .venv/test  ## the tests that start no process and no server
	pytest -n 2 -m "not slow" tests/unit

docs: .venv/test  ## the pages of docs/, into .modelpress/docs
	python docs/generate.py
	NO_MKDOCS_2_WARNING=1 mkdocs build

ui: .venv/run  ## the Prefect and MLflow servers, on loopback
	modelpress ui

bench: .venv/test  ## every benchmark but the five below, gpu.py and text_encoders.py, one after another, on a quiet machine
	set -e; for script in $(BENCHMARKS); do python $$script; done

compression: .venv-peers/ready  ## ours against other compressors, on a quiet machine; after a run
	.venv-peers/bin/python benchmarks/compression.py $(ARGS)

throughput: .venv-peers/ready  ## training, ours against other trainers, on a quiet machine
	.venv-peers/bin/python benchmarks/throughput.py $(ARGS)

text_peers: .venv-peers/ready  ## texts, ours beside fastText, model2vec and scikit-learn, on a quiet machine; after datasets
	.venv-peers/bin/python benchmarks/text_peers.py $(ARGS)

networks: .venv/test  ## every network through the whole pipeline; hours
	python benchmarks/networks.py $(ARGS)

datasets: .venv/test  ## init and run on a dozen data sets that nothing was set for; hours
	python benchmarks/datasets.py $(ARGS)

lock:  ## resolve pyproject.toml anew; needs uv
	$(UV) --upgrade -o requirements.lock
	$(UV) --extra test -c requirements.lock -o requirements-test.lock

.venv/run: requirements.lock pyproject.toml
	$(call install,requirements.lock)

.venv/test: requirements-test.lock pyproject.toml
	$(call install,requirements-test.lock)
	touch .venv/run

# An environment on top of .venv: what the peers need more or otherwise is here, and .venv stays as it is.
# onnx-neural-compressor asks for numpy<2, but runs with 2.
.venv-peers/ready: .venv/run pyproject.toml
	test -x .venv-peers/bin/python || $(PYTHON) -m venv --without-pip .venv-peers
	echo "import site; site.addsitedir('$$($(BIN)/python $(SITE))')" >"$$(.venv-peers/bin/python $(SITE))/venv.pth"
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[peers]'
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps onnx-neural-compressor==1.0
	touch $@

# --no-deps: the lock is complete, and pip need not resolve it once more. A build of torch without CUDA that is there
# already stays, and so do the libraries that only CUDA needs where they are.
define install
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	if $(BIN)/python -c 'import torch, torchvision, sys; sys.exit(torch.version.cuda is not None)' 2>/dev/null; \
		then awk '/^[a-z]/ {keep = !/^(torch|torchvision|triton)==|^(nvidia|cuda)-/} keep' $(1) >.venv/lock; \
		else cp $(1) .venv/lock; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r .venv/lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
endef

clean:  ## what runs have left, but not the data, the cache or the environment
	rm -rf .modelpress .mypy_cache .ruff_cache .pytest_cache
