// Xen's virtual block device, the backend's half [xen/io/blkif.h].
// Fidelity: read, write, barrier, flush, discard, indirect requests, persistent grants, several queues, multi-page
// rings, both x86 ABIs. Missing: secure discard, sectors larger than 512 bytes (which most frontends get wrong; larger
// blocks are offered as the physical sector size), resizing while connected.
// Threads: xenbus on the loop's; rings and requests of all queues on the disk's, so that a vCPU never waits for a disk.
// Requests run in parallel, as many as the rings hold, but for barriers, each of which is alone in its queue. A
// disconnect waits for those in flight; those not begun stay on the ring.
// Data goes between the guest's pages and the disk without a copy of our own.
#pragma once
#include <memory>
#include <vector>

#include "device/core/block/block_service.h"
#include "device/xenbus/blk/blk_queue.h"
#include "device/xenbus/bus/backend.h"

namespace bulkhead::device::xenbus {

class BlkBackend final : public Backend {
 public:
  static constexpr unsigned kMaxQueues = BlockCore::kMaxQueues, kMaxRingPageOrder = 4;

  struct Options {
    unsigned index = 0;             // xvda, xvdb, ...
    unsigned queues = 1;            // 1 to kMaxQueues: one for each vCPU is what drivers like
    bool persistent = true;         // offer persistent grants
    std::size_t kept_pages = 1056;  // of each queue, where the frontend wants them kept
  };
  // `core`, `grants` and `events` outlive us.
  BlkBackend(BlockCore& core, GrantPort& grants, EventPort& events, Options options);
  ~BlkBackend() override { disconnect(); }

  // The number by which xenbus and the guest know /dev/xvd[a-z]... (Xen's docs/man/xen-vbd-interface.7).
  static u32 device_number(unsigned index);
  static std::string device_name(unsigned index);

  std::string_view kind() const override { return "vbd"; }
  Nodes backend_nodes() const override;
  Nodes frontend_nodes() const override;
  Nodes features() const override;
  Result<Nodes> connect(const NodeReader& frontend) override;
  void disconnect() override;

  // Runs `change` while no request runs. Any thread but the disk's.
  void quiesced(const std::function<void()>& change) { service_.paused(change); }
  const BlkCounters& counters() const { return counters_; }

 private:
  using Queues = std::vector<std::unique_ptr<BlkQueue>>;
  Nodes properties() const;
  Result<std::unique_ptr<BlkQueue>> open_queue(const NodeReader& frontend, const std::string& prefix, unsigned index,
                                               BlkAbi abi);
  Result<std::vector<GrantedPage>> map_ring(const NodeReader& frontend, const std::string& prefix);
  Result<void> bind(BlkQueue& queue, const NodeReader& frontend, const std::string& prefix, unsigned index);
  void serve(unsigned index);
  void report_overrun(unsigned index);

  BlockCore& core_;
  GrantPort& grants_;
  EventPort& events_;
  const Options options_;
  BlkCounters counters_;
  bool overrun_reported_ = false;  // the disk's thread's
  Queues queues_;                  // changed only while the service is paused
  BlockService service_;           // last: it ends first
};

}  // namespace bulkhead::device::xenbus
