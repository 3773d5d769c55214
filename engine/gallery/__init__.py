"""A gallery: a folder of SQLite shards that keeps every image's features, so that they are computed once.

    GALLERY/gallery.json       what made it: the model and the image size limit; how many shards it has
    GALLERY/shard-00000.sqlite one row an image in `images`, one row a map in `maps`; how many images, in `contents`;
                               one row an image whose EXIF was looked at, in `taken`
    GALLERY/writer.lock        held by the one writer
    GALLERY/damaged            left by a reader that met damage, until a writer has mended it

An image is committed in one transaction and synced to disk before the next one; a kill at any moment costs
the image in flight and nothing else. Readers may read while the writer writes.
"""
