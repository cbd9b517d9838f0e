# Two commands for everyone: make demo, make test. Everything else is for developers.
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
OUT := YOLOX_outputs
TAIL := -f exps/glyphs/tail.py
PHOTOS := tests/golden/coco_images/000000000089.jpg tests/golden/coco_images/000000000626.jpg

.PHONY: demo test test-slow bench study study-full check format fuzz mutants audit clean

$(STAMP): requirements.txt requirements-dev.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet -r requirements-dev.txt
	touch $@

# The data set of the demo lies below this folder wherever the user keeps other data.
unexport YOLOX_DATADIR

# Boxes on two photographs by the weights in the package; then a small long-tailed data set, trained on twice from the same
# weights, plainly and with repeat-factor sampling and EQFL, one thread each; the two compared.
demo: $(STAMP)
	$(PYTHON) tools/demo.py image --path $(PHOTOS) -n yolox-nano --save $(OUT)/photos
	$(PYTHON) tools/inspect_data.py $(TAIL)
	OMP_NUM_THREADS=1 $(PYTHON) tools/train.py $(TAIL) -d 1 -expn demo_plain sampler uniform cls_loss qfl > $(OUT)/plain.log 2>&1 & \
	OMP_NUM_THREADS=1 $(PYTHON) tools/train.py $(TAIL) -d 1 -expn demo_tail; trained=$$?; wait $$! && exit $$trained
	$(PYTHON) tools/report.py $(OUT)/demo_tail $(OUT)/demo_plain -o $(OUT)/demo.html
	@echo "boxes on photographs: $(OUT)/photos; the two runs compared by group and category: $(OUT)/demo.html"
	@echo "your own data: python tools/train.py --data PATH --budget 30m     (PATH: a data.yaml, a COCO json, or a folder)"

test: $(STAMP)
	$(PYTHON) -m pytest -n 2 --dist loadgroup

# Every detector with every loss learns eight images by heart: half an hour.
test-slow: $(STAMP)
	$(PYTHON) -m pytest -n 2 -m slow

# Ours against libraries and textbook formulations, into docs/performance.md: an hour on two quiet cores.
bench: $(STAMP)
	$(PYTHON) -m benchmarks.run

# The losses compared in miniature, docs/results.md: two CPU cores, half an hour; continues where it stopped.
study: $(STAMP)
	OMP_NUM_THREADS=1 $(PYTHON) -m studies --set cpu --jobs 2
	$(PYTHON) -m studies.page --print --from YOLOX_outputs/study

# 1203 categories and all scans: one GPU, hours.
study-full: $(STAMP)
	$(PYTHON) -m studies --set full
	$(PYTHON) -m studies.page --print --from YOLOX_outputs/study

check: $(STAMP)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: $(STAMP)
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

# A minute of changed files for each reader: annotations, results, checkpoints, overrides.
fuzz: $(STAMP)
	$(PYTHON) -m tests.fuzz

# Every small mistake in losses, assigners, evaluation and sampler, against the fast suite: an hour of one core.
mutants: $(STAMP)
	$(PYTHON) -m benchmarks.mutants

# Known faults of the installed packages (asks PyPI), unsafe calls in our own code.
audit: $(STAMP)
	$(PYTHON) -m pip install --quiet bandit pip-audit
	$(PYTHON) -m bandit -q -c pyproject.toml -r yolox_lt tools benchmarks exps
	$(PYTHON) -m pip_audit --skip-editable

clean:
	rm -rf $(VENV) YOLOX_outputs datasets/glyphs
