"""Reading a lab's folder: its table, its micrographs, and which belong together.

``client.dataset`` and ``client.micrographs`` are the ways in; nothing else is called from outside.

table: cells, columns, table, specimen_rows, measurements, plausibility, scales
files: folder, checksums, image_pattern, image_join, image_claims
images: image_header, png_chunks, tiff_files, image_remarks, image_files, image_check
scale of an image: pixel_shape, scale_records, tiff_scale, image_scale, data_bar
"""
