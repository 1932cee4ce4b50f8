"""Kernels: whole sequences computed in one call, equal to the equations of ../recurrent.py."""
