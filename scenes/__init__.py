"""Generated retrieval data sets in the revisitop layout: street façades, photographed from several places.

A *scene* is one instance: a building with its own geometry, materials, ornament and neighbours. A *view* is one
photograph of it: a pinhole camera, light, weather, passers-by, lens and sensor. All scenes use a few families of
buildings that share materials and colours, so neither is enough to distinguish two buildings. An image depends only on
(seed, scene, view) and is byte-identical for the same versions of NumPy and OpenCV.

Units: metres for buildings (x right, y up, z out of the façade), _px for pixels, _deg for degrees. Images are BGR.

- Random choices: `facade` (one building's front), `scene` (the building, its neighbours and street), `view`
- Flat drawings in metres: `relief` (the canvas), `materials`, `windows`, `roofs`, `grounds`, `ornaments`, `building`
- Around the building: `surroundings`, `occluders`
- Results: `projection` and `photograph` (one image), `dataset` (a set of scenes on disk; `python -m scenes` writes one)
"""

from scenes.dataset import DEMO, SETS, TEST, TRAINING, UNSEEN, VALIDATION, SceneSet, grade, measure, write
from scenes.occluders import Occluder
from scenes.photograph import render, silhouette
from scenes.scene import build_scene
from scenes.view import choose_view

__all__ = ["DEMO", "SETS", "TEST", "TRAINING", "UNSEEN", "VALIDATION", "SceneSet", "write"]
__all__ += ["Occluder", "build_scene", "choose_view", "grade", "measure", "render", "silhouette"]
