# SPDX-License-Identifier: Apache-2.0
"""The two classic tasks of Fig. 3 of Azizi et al., deterministic and cheap to evaluate.

``iris``: random-forest *regression* of the class, 3 choices. A forest of n trees is the first n
trees of a larger one with the same seed, so that one forest of 200 trees answers for all sizes;
trees that stop by themselves are the same at any larger depth. Thus the whole space is a table.

``titanic``: gradient boosting, 6 choices. scikit-learn takes 5 s for the five folds, boosting.c,
the same algorithm for small data, 0.1 s; `check` compares the two.

The paper gives no ranges; these are ours. Folds and seeds are fixed, so that an objective is a
function.
"""

from __future__ import annotations

import csv
import ctypes
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, StratifiedKFold

HERE = Path(__file__).resolve().parent
TITANIC = HERE.parents[1] / "shared" / "data" / "titanic.csv"
MAX_TREES = 200
# In the order of how many of the 7 features they look at: 2, 2, 3, 7.
MAX_FEATURES = ("sqrt", "log2", 0.5, None)


@dataclass(frozen=True)
class Task:
    """An objective to be maximized.

    Attributes:
        name: For tables.
        space: Distributions by name.
        objective: Value of a point.
        n_startup: Random evaluations before a model, as in the paper.
        n_trials: Evaluations in all.
    """

    name: str
    space: dict[str, BaseDistribution]
    objective: Callable[[dict], float]
    n_startup: int = 20
    n_trials: int = 100


class IrisForest:
    """Mean R2 of a five-fold cross-validation, for every point of the space."""

    space: ClassVar[dict[str, BaseDistribution]] = {
        "n_estimators": IntDistribution(10, MAX_TREES),
        "max_depth": IntDistribution(1, 20),
        "min_samples_split": IntDistribution(2, 20),
    }

    def __init__(self, cache: Path) -> None:
        self._path = cache / "iris_forest.npz"

    def __call__(self, point: dict) -> float:
        depth = min(point["max_depth"], len(self.table))
        return float(
            self.table[depth - 1, point["min_samples_split"] - 2, point["n_estimators"] - 1]
        )

    @cached_property
    def table(self) -> np.ndarray:
        """R2 by depth, smallest node to split, and number of trees."""
        if self._path.exists():
            return np.load(self._path)["table"]
        depths: list[list[np.ndarray]] = []
        while len(depths) < 20:
            rows = [self._curve(len(depths) + 1, split) for split in range(2, 21)]
            depths.append([curve for curve, _ in rows])
            if max(deepest for _, deepest in rows) <= len(depths) - 1:
                break
        table = np.array(depths)
        np.savez_compressed(self._path, table=table)
        return table

    def _curve(self, depth: int, split: int) -> tuple[np.ndarray, int]:
        """Return R2 for 1, 2, ... trees, and the depth of the deepest of them."""
        x, y = load_iris(return_X_y=True)
        curves, deepest = [], 0
        for train, test in KFold(5, shuffle=True, random_state=0).split(x):
            forest = RandomForestRegressor(
                MAX_TREES, max_depth=depth, min_samples_split=split, random_state=0
            ).fit(x[train], y[train])
            each = np.array([tree.predict(x[test].astype(np.float32)) for tree in forest])
            means = np.cumsum(each, axis=0) / np.arange(1, MAX_TREES + 1)[:, None]
            curves.append([r2_score(y[test], mean) for mean in means])
            deepest = max(deepest, *(tree.get_depth() for tree in forest))
        return np.mean(curves, axis=0), deepest


class TitanicBoosting:
    """Mean accuracy of a stratified five-fold cross-validation."""

    space: ClassVar[dict[str, BaseDistribution]] = {
        "learning_rate": FloatDistribution(1e-3, 0.5, log=True),
        "n_estimators": IntDistribution(50, 500),
        "max_depth": IntDistribution(1, 10),
        "min_samples_split": IntDistribution(2, 20),
        "min_samples_leaf": IntDistribution(1, 20),
        "max_features": IntDistribution(0, len(MAX_FEATURES) - 1),
    }

    def __init__(self, cache: Path) -> None:
        library = cache / "boosting.so"
        source = HERE / "boosting.c"
        command = [
            "cc",
            "-std=c11",
            "-O3",
            "-march=native",
            "-shared",
            "-fPIC",
            "-o",
            library,
            source,
            "-lm",
        ]
        subprocess.run(command, check=True)
        self._hits = ctypes.CDLL(str(library)).boosted_hits
        self._path = cache / "titanic_boosting.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._known = dict(json.loads(line) for line in lines)
        self._x, self._y = titanic()
        self._folds = list(
            StratifiedKFold(5, shuffle=True, random_state=0).split(self._x, self._y)
        )
        self._prepared = [self._prepare(train, test) for train, test in self._folds]

    def __call__(self, point: dict) -> float:
        key = json.dumps([point[name] for name in self.space])
        if key not in self._known:
            self._known[key] = self._evaluate(point)
            with self._path.open("a") as file:
                file.write(json.dumps([key, self._known[key]]) + "\n")
        return self._known[key]

    def _evaluate(self, point: dict) -> float:
        n_features = self._x.shape[1]
        tried = {"sqrt": 2, "log2": 2, 0.5: n_features // 2, None: n_features}
        tree = np.array(
            [
                point["max_depth"],
                point["min_samples_split"],
                point["min_samples_leaf"],
                tried[MAX_FEATURES[point["max_features"]]],
            ],
            dtype=np.int32,
        )
        return float(np.mean([self._accuracy(fold, point, tree) for fold in self._prepared]))

    def reference(self, point: dict) -> float:
        """Return what scikit-learn's implementation gives."""
        accuracies = []
        for train, test in self._folds:
            choices = {**point, "max_features": MAX_FEATURES[point["max_features"]]}
            model = GradientBoostingClassifier(**choices, random_state=0)
            model.fit(self._x[train], self._y[train])
            accuracies.append(model.score(self._x[test], self._y[test]))
        return float(np.mean(accuracies))

    def _prepare(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, ...]:
        x = self._x[train]
        columns = [np.unique(column, return_inverse=True) for column in x.T]
        values = np.zeros((x.shape[1], max(len(distinct) for distinct, _ in columns)))
        for j, (distinct, _) in enumerate(columns):
            values[j, : len(distinct)] = distinct
        ranks = np.stack([inverse for _, inverse in columns]).astype(np.uint16)
        bins = np.array([len(distinct) for distinct, _ in columns], dtype=np.int32)
        labels = self._y.astype(np.int32)
        test_x = np.ascontiguousarray(self._x[test], dtype=np.float64)
        return ranks, bins, values, labels[train], test_x, labels[test]

    def _accuracy(self, fold: tuple[np.ndarray, ...], point: dict, tree: np.ndarray) -> float:
        ranks, bins, values, labels, test_x, test_labels = fold
        hits = self._hits(
            ranks.shape[1],
            len(ranks),
            values.shape[1],
            _pointer(ranks),
            _pointer(bins),
            _pointer(values),
            _pointer(labels),
            len(test_x),
            _pointer(test_x),
            _pointer(test_labels),
            ctypes.c_double(point["learning_rate"]),
            int(point["n_estimators"]),
            _pointer(tree),
            ctypes.c_uint64(0),
        )
        return hits / len(test_x)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def titanic() -> tuple[np.ndarray, np.ndarray]:
    """Return 7 features, missing ages by the median and missing ports by Southampton; labels."""
    with TITANIC.open(newline="") as file:
        people = list(csv.DictReader(file))
    ages = [float(p["Age"]) for p in people if p["Age"]]
    x = np.array(
        [
            [
                float(p["Pclass"]),
                float(p["Sex"] == "female"),
                float(p["Age"] or np.median(ages)),
                float(p["SibSp"]),
                float(p["Parch"]),
                float(p["Fare"]),
                float({"S": 0, "C": 1, "Q": 2}[p["Embarked"] or "S"]),
            ]
            for p in people
        ]
    )
    return x, np.array([int(p["Survived"]) for p in people])


def random_point(space: dict[str, BaseDistribution], rng: np.random.Generator) -> dict:
    """Return a point, uniform on the scale of each choice."""
    point: dict = {}
    for name, d in space.items():
        if isinstance(d, IntDistribution):
            point[name] = int(rng.integers(d.low, d.high + 1))
        elif isinstance(d, FloatDistribution):
            point[name] = float(np.exp(rng.uniform(np.log(d.low), np.log(d.high))))
    return point


def check(task: TitanicBoosting, n_points: int) -> np.ndarray:
    """Return (ours, scikit-learn's) accuracy at random points, shape ``(n_points, 2)``."""
    rng = np.random.default_rng(0)
    points = [random_point(task.space, rng) for _ in range(n_points)]
    return np.array([(task(point), task.reference(point)) for point in points])
