# Two commands for everyone: make demo, make test. Everything else is for developers.
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
RUN := YOLOX_outputs/eqfl

.PHONY: demo test test-slow bench study study-full check format fuzz mutants audit clean

$(STAMP): requirements.txt requirements-dev.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet -r requirements-dev.txt
	touch $@

# The data set of the demo lies below this folder wherever the user keeps other data.
unexport YOLOX_DATADIR

# Writes the glyph data set, trains a small EQFL detector on it, scores it by frequency group, draws its boxes.
demo: $(STAMP)
	$(PYTHON) tools/inspect_data.py -f exps/glyphs/eqfl.py
	$(PYTHON) tools/train.py -f exps/glyphs/eqfl.py -d 1
	$(PYTHON) tools/eval.py -f exps/glyphs/eqfl.py -c $(RUN)/best.pth -d 1
	$(PYTHON) tools/demo.py image --path datasets/glyphs/30_128px_2400_400_zipf_0/val2017/00000000240[1-8].jpg -c $(RUN)/best.pth --save $(RUN)/pictures/demo
	@echo "pictures: $(RUN)/pictures (demo/ = what the detector found); numbers: $(RUN)/metrics.csv and per_category.csv"
	@echo "report: $(RUN)/report.html"

test: $(STAMP)
	$(PYTHON) -m pytest -n 2 --dist worksteal

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
