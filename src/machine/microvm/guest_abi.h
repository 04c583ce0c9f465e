// What the vCPU threads ask of the ABI that a guest was promised.
#pragma once
#include "engine/exit.h"

namespace bulkhead::machine {

// All on the thread of vCPU `vcpu`.
class GuestAbi {
 public:
  enum class Next : u8 {
    kRun,
    kYield,  // let other threads run first
    kWait,   // run again when may_run() says so, or in a short while
    kDown,   // run again when may_run() says so
    kEnd,    // the machine's outcome has been reported
  };
  virtual ~GuestAbi() = default;
  virtual Next hypercall(unsigned vcpu, engine::HypercallExit& exit) = 0;
  virtual bool msr(unsigned vcpu, engine::MsrExit& exit) = 0;  // false: not one of the ABI's
  virtual bool may_run(unsigned vcpu) = 0;
  virtual void end_wait(unsigned vcpu) = 0;  // it runs again although may_run() did not say so
};

}  // namespace bulkhead::machine
