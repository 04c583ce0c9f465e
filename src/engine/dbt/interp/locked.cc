#include "engine/dbt/interp/locked.h"

#include "engine/dbt/cpu/shared.h"

namespace bulkhead::engine::dbt {

BH_TSA(no_thread_safety_analysis)
void run_locked(Cpu& cpu, u64 linear, unsigned size, LockedOp op, void* context) {
  cpu.probe_write(linear, size);
  cpu.spill_fpu();  // the mutex is library code
  Mutex& mutex = cpu.shared.split_lock;
  BH_GUARD(cpu) {
    mutex.lock();
    op(context, cpu, linear);
    mutex.unlock();
    return;
  }
  cpu.shared.split_lock.unlock();
  longjmp(cpu.escape, 1);  // the same escape, one guard further out
}

}  // namespace bulkhead::engine::dbt
