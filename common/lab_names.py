"""The names that enrolment gives to labs: what others read of them is no free text."""

from __future__ import annotations

import re

LAB_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
