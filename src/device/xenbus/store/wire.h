// Xen's own header of the wire protocol, which needs the integer types and says so nowhere.
#pragma once
// clang-format off: in this order
#include <cstdint>
#include <xen/io/xs_wire.h>
// clang-format on
