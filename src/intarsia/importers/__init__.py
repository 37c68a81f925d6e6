"""Annotation exports: read into pictures with shapes, written from class maps; one file per format."""

import intarsia.importers.coco
import intarsia.importers.coco_panoptic
import intarsia.importers.config
import intarsia.importers.cvat
import intarsia.importers.datumaro
import intarsia.importers.label_studio
import intarsia.importers.labelme
import intarsia.importers.labelme_xml
import intarsia.importers.masks
import intarsia.importers.qupath
import intarsia.importers.superannotate
import intarsia.importers.supervisely
import intarsia.importers.via
import intarsia.importers.voc
import intarsia.importers.yolo  # noqa: F401
