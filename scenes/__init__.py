"""Generated retrieval data sets in the revisitop layout: street façades, photographed from several places.

A *scene* is one instance: a building with its own geometry, materials, ornament and neighbours. A *view* is one
photograph of it: a pinhole camera, light, weather, passers-by, lens and sensor. All scenes use a few families of
buildings that share materials and colours, so neither is enough to distinguish two buildings. An image depends only on
(seed, scene, view) and is byte-identical for the same versions of NumPy and OpenCV.

Units: metres for buildings (x right, y up, z out of the façade), _px for pixels, _deg for degrees. Images are BGR.

Random choices:

- `palette`: colours, and choices among them
- `family`: the kinds of buildings
- `facade`, `scene`: one building's front; the building with its neighbours and street
- `occluders`: objects in front of the building, and how to draw them
- `view`: one photograph, and its camera

Flat drawings, in metres:

- `relief`: the canvas, with depth; `materials`: its textures
- `windows`, `roofs`, `grounds`: the parts that every building has
- `patterns`, `carvings`, `fittings`, `signs`: ornament; `ornaments`: all of it, in drawing order
- `building`: whole fronts and flanks
- `sky`, `street`: the surroundings

Results:

- `projection`: flat canvases as seen by a camera
- `photograph`: the image, and the silhouette of the building in it
- `labels`: easy, hard or junk, measured on the images
- `dataset`: a set of scenes on disk; `python -m scenes` writes one
"""

from scenes.dataset import CALIBRATION, DEMO, SETS, TEST, TRAINING, UNSEEN, VALIDATION, SceneSet, write
from scenes.facade import Facade
from scenes.labels import Sight, grade, measure
from scenes.occluders import Occluder
from scenes.photograph import render, silhouette
from scenes.scene import Scene, build_scene
from scenes.view import View, choose_view

__all__ = [
    "CALIBRATION",
    "DEMO",
    "SETS",
    "TEST",
    "TRAINING",
    "UNSEEN",
    "VALIDATION",
    "Facade",
    "Occluder",
    "Scene",
    "SceneSet",
    "Sight",
    "View",
    "build_scene",
    "choose_view",
    "grade",
    "measure",
    "render",
    "silhouette",
    "write",
]
