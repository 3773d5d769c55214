"""Training of the demonstration model (docs/demo-model.md): from generated pictures to `cvnet/demo.npz`.

- `photographs`: generated scenes on disk, with where each point of the façade is seen
- `collages`: pictures of no particular thing
- `views`: crops of one picture, warped and developed differently, with what corresponds
- `pairs`, `losses`: batches of the first stage, and their losses
- `slim`: a narrow ResNet that fits into the published one
- `backbone`, `whitening`, `verifier`: the stages of training, in this order; `head_start`: where the last one starts
- `checkpoints`, `processes`: going on after a stop; several processes
- `evaluate`, `pack`: mAP on the validation scenes; all weights in one file
"""
