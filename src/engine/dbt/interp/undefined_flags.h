// Arithmetic flags that an instruction leaves undefined [SDM-1 Appendix A]: what the differential tester may ignore
// when two processors differ. The interpreter itself gives what its host gives, except for the BCD adjustments.
#pragma once
#include "engine/dbt/front/insn.h"

namespace bulkhead::engine::dbt {

// RFLAGS bits. Where it depends on a count in CL, those that any count leaves undefined.
u32 undefined_flags(const Insn& insn);

}  // namespace bulkhead::engine::dbt
