"""Training of the demonstration model (docs/demo-model.md): from generated images to `cvnet/demo.npz`.

- `photographs`: generated scenes on disk, with the visible points of each façade; `collages`: abstract images
- `views`: crops of one image, warped and developed differently, with correspondences; `pairs`: batches of them
- `slim`: a narrow ResNet that fits into the published one
- `backbone`, `whitening`, `verifier`: the training stages, in this order; `head_start`: initial weights of the last one
- `stages`: the loop of the first and last stage, which resumes after an interruption and runs in several processes
- `evaluate`, `pack`: mAP on the validation scenes; all weights in one file
- `mixing`: regression that gives the weight of coarse pair scores
"""
