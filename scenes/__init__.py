"""Generated retrieval data sets in the revisitop layout: street façades, photographed from several places.

A *scene* is one instance: a building with its own geometry, materials, ornament and neighbours. A *view* is one
photograph of it: a pinhole camera, light, weather, passers-by, lens and sensor. Scenes are drawn from a few families
that share materials and colours, so neither alone tells two buildings apart. Everything follows from (seed, scene,
view); images are byte-identical for one version of numpy and OpenCV.

Units: metres for buildings (x right, y up, z out of the façade), _px for pixels, _deg for degrees. Images are BGR.

What is chosen at random:

- `palette`: colours, and choices among them
- `family`: the kinds of buildings
- `facade`, `scene`: one building's front; the building with its neighbours and street
- `occluders`: who and what stands before it, and how they are drawn
- `view`: one photograph, and its camera

What is drawn flat, in metres:

- `relief`: the canvas, with depth; `materials`: its textures
- `windows`, `roofs`, `grounds`: the parts that every building has
- `patterns`, `carvings`, `fittings`, `signs`: ornament; `ornaments`: all of it, in the order of drawing
- `building`: whole fronts and flanks
- `sky`, `street`: what is around them

What is made of it:

- `projection`: flat canvases as a camera sees them
- `photograph`: the picture, and the silhouette of the building in it
- `labels`: easy, hard or junk, measured on the pictures
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
