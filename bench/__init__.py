"""Side by side with other software: `make bench`, or `python -m bench` where the peers are installed.

works.py     what is measured, and the goals
check.py     that all compute the same; nothing is measured before
ours.py, pytorch.py, jax_scan.py, classic.py    the contestants
images.py, images_ours.py, images_pytorch.py    training on images, and who takes part
child.py     each of them runs in a process of its own, and works only when asked
measure.py   the measurements
report.py    RESULTS.md, out of results.json
per_op.py    engines without fused kernels, op by op
"""
