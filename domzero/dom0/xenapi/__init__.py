# SPDX-License-Identifier: Apache-2.0
"""XenAPI: the interface that clients of XAPI (XenServer, XCP-ng) speak, as one more door to Domain 0.

`classes/` says which classes, fields and messages there are and where their values come from; `dispatch` carries a
message out; `wire_xml`, `wire_json` and `routes` are what goes over HTTP.
"""
