"""How the demonstration model was trained (docs/demo-model.md): generated pictures in, `cvnet/demo.npz` out.

- `photographs`: generated scenes on disk, with where each point of the façade is seen
- `collages`: pictures of no particular thing, made on the fly
- `views`: crops of one picture, warped and developed differently, with what corresponds
- `slim`: a narrow ResNet that fits into the published one
- `backbone`, `verifier`: the two stages of training
- `pack`: the weights of both in one file
"""
