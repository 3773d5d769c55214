"""Galleries: folders that store the features of images, so that each image is processed only once.

    GALLERY/gallery.json         settings, such as the model and the image size limit, and the number of shards
    GALLERY/shard-00000.sqlite   tables `images` (one row per image), `maps` (one row per feature map), `contents`
                                 (number of images), `state` and `taken` (EXIF date and place)
    GALLERY/shard-00000.columns  cache of the shard for fast opening, see `columns`
    GALLERY/map-code.npz         parameters of compressed maps, see `map_codecs`
    GALLERY/approximate.index    index for approximate search (optional), see `ann_file`
    GALLERY/parts/               images that a cluster is indexing, see `ray_indexing`
    GALLERY/writer.lock          file lock that allows one writer at a time
    GALLERY/damaged              marker created by a reader that found damage, removed by the writer that repaired it

Each image is committed in one transaction and synced to disk before the next one, so a kill loses at most the images
in progress. Readers and the writer do not block each other.
"""
