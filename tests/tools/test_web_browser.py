"""The demo page in a real browser: the checkbox of the categories' own thresholds."""

from __future__ import annotations

import contextlib
import threading

import cv2
import numpy as np
import pytest
import torch

from tests.report.chromium import CHROMIUM, DRIVER, installed, started
from tests.tiny import tiny_exp
from yolox_lt.calibrate.calibrator_state import Thresholds
from yolox_lt.commands.web import make_server
from yolox_lt.inference import LoadedDetector

selenium = pytest.importorskip("selenium", reason="selenium is not installed (requirements-dev.txt)")

pytestmark = pytest.mark.skipif(not installed(), reason=f"needs {CHROMIUM} and {DRIVER}")

CONF = torch.tensor([0.0, 0.009, 0.011, float("nan")])
"""Of an untrained detector, whose scores lie around 0.01; NaN: of this category nothing is reported."""


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.getbasetemp()
    exp = tiny_exp(folder, folder)
    none = torch.full((4,), float("nan"))
    names = tuple(f"glyph {i}" for i in range(4))
    return LoadedDetector(exp.get_model().eval(), exp, names, "cpu", thresholds=Thresholds("best F1", CONF, none, none))


@contextlib.contextmanager
def opened(detector, profile):
    """The page of a detector in a browser."""
    with make_server(detector, port=0) as server, started(profile) as browser:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            browser.implicitly_wait(5)
            browser.get(f"http://127.0.0.1:{server.server_port}/")
            browser.find_element("css selector", "#categories li")
            yield browser
        finally:
            server.shutdown()
            thread.join()


def test_auto__shows_each_category_from_its_own_threshold_on(detector, tmp_path):
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8))
    found = detector(path, conf=0.0)
    own = CONF.nan_to_num(2.0)[found.labels]

    def wanted(least):
        """Detections of each category with at least this score."""
        return torch.bincount(found.labels[found.scores >= least], minlength=4).tolist()

    with opened(detector, tmp_path / "profile") as browser:
        script, auto = browser.execute_script, browser.find_element("id", "auto")
        assert auto.is_displayed()
        assert auto.is_selected()  # where thresholds exist they are the default
        browser.find_element("id", "single").click()  # every category by itself, as the API does
        browser.find_element("id", "file").send_keys(str(path))
        browser.find_element("css selector", "#drop:not(.empty)")

        def shown():
            rows = script(
                """return [...document.querySelectorAll("#categories li")].map(
                    (row) => [".name", ".number"].map((kind) => row.querySelector(kind).textContent));"""
            )
            counts = {name: int(number or 0) for name, number in rows}
            return [counts[name] for name in detector.names]

        assert shown() == wanted(own)
        assert 0 < sum(wanted(own)) < len(found)
        assert wanted(own)[3] == 0 < wanted(0)[3]
        auto.click()
        assert shown() == wanted(0.3) == [0, 0, 0, 0]
        auto.click()
        assert shown() == wanted(own)
        script("const s = document.getElementById('threshold'); s.value = 0; s.dispatchEvent(new Event('input'))")
        assert not auto.is_selected()  # a score for all is what one has chosen now
        assert shown() == wanted(0)
        assert browser.get_log("browser") == []


def test_auto__is_not_offered_without_thresholds(detector, tmp_path):
    plain = LoadedDetector(detector.model, detector.exp, detector.names, "cpu")
    with opened(plain, tmp_path / "profile") as browser:
        assert not browser.find_element("id", "own").is_displayed()
        assert not browser.find_element("id", "auto").is_selected()
