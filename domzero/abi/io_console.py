# SPDX-License-Identifier: Apache-2.0
"""io/console.h: the console ring."""

from domzero.abi.layout import Annotated, Wire, chars, u32, wire


@wire
class xencons_interface(Wire):
    """The console page."""

    in_: Annotated[bytes, chars(1024)]
    out: Annotated[bytes, chars(2048)]
    in_cons: u32
    in_prod: u32
    out_cons: u32
    out_prod: u32
