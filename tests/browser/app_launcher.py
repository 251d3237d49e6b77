"""The real launcher on the demos below $DEMO_ASSETS instead of the bundled ones."""

from __future__ import annotations

import os
from pathlib import Path

import streamlit as st

import app as patchbay
from interp_core.models import bundled

bundled.ASSETS = Path(os.environ["DEMO_ASSETS"])
app = st.App(patchbay.ROUTER, **patchbay.OPTIONS)
