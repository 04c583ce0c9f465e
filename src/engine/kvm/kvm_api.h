// <linux/kvm.h> as the kernel means it. Its arrays of unknown length lie in the wrong place for C++, where an empty
// structure in front of them takes a byte.
#pragma once
#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(type, name) type name[0]
#include <linux/kvm.h>
#undef __DECLARE_FLEX_ARRAY

#include <cstddef>

static_assert(offsetof(kvm_msrs, entries) == 8 && offsetof(kvm_cpuid2, entries) == 8 &&
              offsetof(kvm_irq_routing, entries) == 8);
