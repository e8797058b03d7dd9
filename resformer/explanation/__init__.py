"""Where on a film the evidence for a class and the lungs lie, and the picture of it.

Computed only when asked for: a prediction does not pay for it.
"""

from __future__ import annotations

from resformer.explanation.evidence import class_evidence, evidence_map, scale_evidence
from resformer.explanation.outline import trace_lungs
from resformer.explanation.overlay import encode_overlay

__all__ = ["class_evidence", "encode_overlay", "evidence_map", "scale_evidence", "trace_lungs"]
