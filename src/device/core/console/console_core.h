// The console device without a transport: a list of ports, each with a backend.
// Threads: from_guest(), to_guest(), guest_open() and flush_emergency() from one thread at a time; everything else from
// any. Nothing blocks and nothing is dropped, except emergency output beyond kEmergencyBytes while the backend is
// stuck.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/sync.h"
#include "device/console_backend.h"
#include "telemetry/counter.h"

namespace bulkhead::device {

struct ConsolePortSpec {
  std::string name;
  ConsoleBackend* backend = nullptr;  // outlives the core; null: output vanishes, there is never input
  bool is_console = false;            // a terminal in the guest rather than a plain byte channel
};

class ConsoleCore {
 public:
  enum class Event : u8 { kReadable, kWritable, kAttributes };       // attributes: size or host_open changed
  using Listener = std::function<void(unsigned port, Event event)>;  // any thread; may be called within a backend call
  static constexpr std::size_t kEmergencyBytes = 4096;

  explicit ConsoleCore(std::vector<ConsolePortSpec> ports);
  // Waits for callbacks of backends that are running; later ones do nothing.
  ~ConsoleCore();
  ConsoleCore(const ConsoleCore&) = delete;
  ConsoleCore& operator=(const ConsoleCore&) = delete;

  unsigned port_count() const { return static_cast<unsigned>(ports_.size()); }
  const ConsolePortSpec& port(unsigned index) const { return ports_[index]; }
  void listen(Listener listener);  // once, before the backends have anything to say; empty stops it

  // How many bytes the backend took; fewer than offered: try the rest after kWritable.
  std::size_t from_guest(unsigned port, std::span<const std::byte> data);
  // How many bytes were put into `out`; 0: try after kReadable.
  std::size_t to_guest(unsigned port, std::span<std::byte> out);
  void guest_open(unsigned port, bool open);

  // One byte of early output on port 0, before any queue exists; kept if the backend is not ready for it.
  void emergency_write(std::byte value);
  void flush_emergency();

  // Zero columns: nobody has said yet.
  TerminalSize size() const;
  void resize(TerminalSize size);
  bool host_open(unsigned port) const { return host_open_[port].load(); }
  void set_host_open(unsigned port, bool open);  // ports start open; closed, the guest reads end-of-file

  enum CounterIndex : u8 { kBytesFromGuest, kBytesToGuest, kEmergencyDropped, kStalls };
  const telemetry::CounterSet& counters() const { return counters_; }

 private:
  // Outlives us in the backends' hands, so that a late callback finds nobody instead of freed memory.
  struct Link {
    std::atomic<ConsoleCore*> core;
    std::atomic<u32> users{0};
  };
  static void deliver(Link& link, unsigned port, Event event);

  std::vector<ConsolePortSpec> ports_;
  std::shared_ptr<Link> link_ = std::make_shared<Link>();
  Listener listener_;
  std::atomic<u32> size_{0};  // columns << 16 | rows
  std::unique_ptr<std::atomic<bool>[]> host_open_;
  Mutex emergency_mutex_;
  std::vector<std::byte> emergency_ BH_GUARDED_BY(emergency_mutex_);
  telemetry::CounterSet counters_{{"bytes_from_guest", "bytes_to_guest", "emergency_dropped", "stalls"}};
};

}  // namespace bulkhead::device
