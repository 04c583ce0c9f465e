// Things that an engine does without waking whoever runs the vCPU, where it can: a guest's write signals an eventfd,
// and an eventfd interrupts the guest. Each ends with its object.
#pragma once
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/sync.h"
#include "bus/io.h"
#include "engine/exit.h"

namespace bulkhead::engine {

// Which writes: of this size, to this port or guest-physical address, of this value or any.
struct WritePlace {
  enum class Space : u8 { kPort, kMmio };
  Space space = Space::kMmio;
  u64 address = 0;
  u8 size = 4;  // bytes
  std::optional<u64> value;
};

class Registration {
 public:
  virtual ~Registration() = default;
};

class InterruptRegistration : public Registration {
 public:
  virtual int descriptor() const = 0;  // an eventfd: adding to it sends the message once, at least
  // What is sent; nothing: what is signalled is lost. Any thread.
  virtual void set_message(const std::optional<Msi>& message) = 0;
};

// Both, for engines that cannot: writes are looked up when they come out of the guest, and a thread for each interrupt
// waits for its eventfd. Outlives its registrations.
class EmulatedRegistrations {
 public:
  EmulatedRegistrations() = default;
  EmulatedRegistrations(const EmulatedRegistrations&) = delete;
  std::unique_ptr<Registration> add_write(const WritePlace& place, int eventfd);
  // Errors: the host has no descriptor or thread left.
  static Result<std::unique_ptr<InterruptRegistration>> add_interrupt(MsiSink& sink);
  // True: the exit was such a write, it is done and not the machine's. Any thread.
  bool takes(const Exit& exit);

 private:
  class Write;
  struct Entry {
    const Write* owner;
    WritePlace place;
    int eventfd;
  };
  Mutex mutex_;
  std::vector<Entry> entries_ BH_GUARDED_BY(mutex_);
  std::atomic<bool> any_{false};
};

}  // namespace bulkhead::engine
