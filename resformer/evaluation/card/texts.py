"""What a card says that no measurement does: intended use, limits, and reporting guidelines.

CLAIM: Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024
Update", Radiology: AI 6 (2024) e240300. TRIPOD+AI: Collins et al., BMJ 385 (2024) e078378. Their
items are grouped by topic; what does not apply to a tool that was tried on no patient is left out.
"""

from __future__ import annotations

INTENDED_USE = (
    "Research and teaching on frontal chest X-rays. It is not a medical device and must not be "
    "used to diagnose, to treat or to decide anything about a person."
)
LIMITATIONS = (
    "It has not been validated on patients: the figures come from films of the same collections "
    "as the training films, and the intervals say nothing about other populations.",
    "It may recognise the hospital, the device or the age of a person instead of a disease.",
    "It knows its classes and no others, and always picks one, also for a disease that is none "
    "of them, or for several at once.",
    "It reads upright frontal films. Other pictures, such as lateral views or photographs of a "
    "screen, may be classified as if they were such films.",
)

GUIDELINE_ITEMS = (
    (
        "Data sources (CLAIM: data; TRIPOD+AI: source of data)",
        "Public collections, put together afterwards and for other purposes; the README names and "
        "cites them. Each class comes from other hospitals, which is the main bias.",
    ),
    (
        "Eligibility (CLAIM: data; TRIPOD+AI: participants)",
        "Every film of the collection that can be read. Age, sex, device and time of the films are "
        "not known, so neither selection nor fairness between groups can be examined.",
    ),
    (
        "Ground truth (CLAIM: ground truth; TRIPOD+AI: outcome)",
        "The folder that a film lies in. How the collections' authors came to it differs by class "
        "and is not known for each film; nobody read the films again.",
    ),
    (
        "Partition (CLAIM: data partitions; TRIPOD+AI: analytical methods)",
        "Training, validation and test by groups of near-duplicates, by class. Patients are not "
        "named in the data: two unlike films of one person may lie in two splits.",
    ),
    (
        "Sample size (CLAIM: data partitions; TRIPOD+AI: sample size)",
        "All films that there are; no calculation was made. The intervals show what the number "
        "of test films allows to say.",
    ),
    (
        "Model (CLAIM: model; TRIPOD+AI: model specification)",
        "One network, described in the README and open as source; inputs are pixels alone. The "
        "weights are in the checkpoint.",
    ),
    (
        "Training (CLAIM: training; TRIPOD+AI: model development)",
        "The settings are in this card. The epoch was chosen by macro-F1, and the temperature "
        "fitted, on validation films; recipes were compared on them too.",
    ),
    (
        "Evaluation (CLAIM: evaluation; TRIPOD+AI: performance)",
        "Discrimination, calibration and risk against coverage on test films that chose nothing, "
        "with intervals. Net benefit was not examined, for no decision is supported.",
    ),
    (
        "Failure analysis (CLAIM: evaluation; TRIPOD+AI: limitations)",
        "Controls on changed films, the confusion matrix, and the figures of each source, in this "
        "card; the worst mistakes, in the notebook.",
    ),
    (
        "Explainability (CLAIM: model)",
        "A map of the evidence; its faithfulness is measured in benchmarks/evidence.md.",
    ),
    (
        "External testing (CLAIM: evaluation; TRIPOD+AI: model evaluation)",
        "Counts on films of other hospitals, where this card has them. The sets are small and "
        "their classes are not the model's, so they are a gauge and no validation.",
    ),
    (
        "Limitations (CLAIM: discussion; TRIPOD+AI: interpretation)",
        "Above. No reader, clinic or patient took part in development or evaluation.",
    ),
    (
        "Availability (CLAIM: other information; TRIPOD+AI: open science)",
        "Source, weights, split and report are in the repository; the films are not, and come from "
        "their publishers. There was no protocol and no registration.",
    ),
)
