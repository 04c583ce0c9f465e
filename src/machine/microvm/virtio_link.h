// How a virtio device behind memory-mapped registers meets its guest without exits, where the engine can do that: the
// guest's notifications come by eventfds, its interrupt is an eventfd, and it reads the registers from a page.
#pragma once
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "base/sync.h"
#include "device/ioapic/ioapic.h"
#include "device/virtio/mmio/mmio.h"
#include "engine/engine.h"
#include "machine/acpi/tables.h"

namespace bulkhead::machine {

// One thread that calls back for eventfds.
class EventLoop {
 public:
  static Result<std::unique_ptr<EventLoop>> create();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  // A new eventfd of ours; `call` runs on the loop's thread after it was signalled. Before start().
  Result<int> add(std::function<void()> call);
  void listen(int events, bool on);  // whether to wait for that eventfd; any thread
  // True as long as the loop is there.
  std::shared_ptr<const bool> alive() const { return alive_; }
  void start();
  void stop();  // returns when the thread has ended

 private:
  EventLoop() = default;
  void run();
  struct Source {
    UniqueFd events;
    std::function<void()> call;
  };
  UniqueFd poll_, end_;
  std::vector<std::unique_ptr<Source>> sources_;
  std::thread thread_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

class VirtioLink final : private device::virtio::QueueEvents {
 public:
  static bool possible(const engine::Partition& partition, const VirtioMmioWindow& window);
  // nullptr: the engine cannot do it more cheaply than by exits, or the line is not only the IOAPIC's. Outlived by all.
  static Result<std::unique_ptr<VirtioLink>> create(engine::Partition& partition, device::IoApic& ioapic,
                                                    const VirtioMmioWindow& window);
  ~VirtioLink();
  VirtioLink(const VirtioLink&) = delete;

  IrqLine& line() { return line_; }
  Mutex& lock() { return lock_; }  // of the transport's range on the bus
  // The transport that has our line and our lock. `loop` has not started and ends before the transport.
  Result<void> connect(device::virtio::VirtioMmio& transport, EventLoop& loop);

 private:
  struct Line final : IrqLine {
    void set(bool asserted) override;
    std::unique_ptr<engine::InterruptRegistration> events;
    std::unique_ptr<engine::LineRegistration> edge;  // instead, where the IOAPIC is the engine's
    int descriptor = -1;                             // of either
    std::atomic<bool> direct{false};                 // the IOAPIC would only pass an edge on
    IrqLine* ioapic = nullptr;
  };
  VirtioLink(engine::Partition& partition, Gpa window) : partition_{partition}, window_{window} {}
  int borrow_notifications(unsigned queue) override;
  void give_back(unsigned queue) override;
  int interrupts() override { return line_.descriptor; }

  engine::Partition& partition_;
  const Gpa window_;
  std::byte* page_ = nullptr;
  Mutex lock_;
  Line line_;
  UniqueFd ignored_;
  EventLoop* loop_ = nullptr;
  std::shared_ptr<const bool> loop_is_there_;
  std::vector<int> notified_;      // of each queue
  std::atomic<bool> lent_{false};  // the kernel interrupts by itself
  std::vector<std::unique_ptr<engine::Registration>> registrations_;
};

}  // namespace bulkhead::machine
