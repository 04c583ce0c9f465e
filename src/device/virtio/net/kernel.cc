// The device where the kernel's vhost-net serves the rings.
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "device/virtio/net/net.h"

namespace bulkhead::device::virtio {

using namespace spec::virtio;
using namespace spec::virtio::net;

u64 VirtioNet::kernel_features() const {
  using namespace bulkhead::net;
  const Offloads takes = core_.end().takes();
  u64 all = kFeatureMtu | kFeatureMac | kFeatureStatus | kFeatureControl;
  if (core_.pair_count() > 1) all |= kFeatureMultiQueue;
  if (vhost_->features() & kFeatureMergeable) all |= kFeatureMergeable;
  if (!(takes & kChecksum)) return all;
  all |= kFeatureChecksum | kFeatureGuestChecksum | kFeatureGuestOffloads;
  if (takes & kTso4) all |= kFeatureHostTso4 | kFeatureGuestTso4;
  if (takes & kTso6) all |= kFeatureHostTso6 | kFeatureGuestTso6;
  if (takes & kTsoEcn) all |= kFeatureHostEcn | kFeatureGuestEcn;
  if (takes & kUso) all |= kFeatureHostUso | kFeatureGuestUso4 | kFeatureGuestUso6;
  return all;
}

void VirtioNet::start_kernel() {
  std::vector<int> taps;
  for (unsigned i = 0; i < core_.pair_count(); ++i) taps.push_back(core_.end().queue(i).descriptor());
  core_.paused([&] { core_.set_end_serves(in_offloads(features_), 1); });
  if (const auto begun = vhost_->begin(features_, *memory_, taps); !begun) {
    log_warning("{}: {}", core_.end().description(), begun.error().message);
    return core_.lose_link();
  }
  use_rings(1);
  vhost_->watch(taps[0], [this] { core_.lose_link(); });
}

void VirtioNet::use_rings(unsigned pairs) {
  core_.paused([&] { core_.set_end_serves(in_offloads(features_), pairs); });
  QueueEvents* const events = host_->events();
  for (unsigned index = 0; index < 2 * core_.pair_count(); ++index) {
    if (index >= 2 * pairs) stop_ring(index);
    if (index >= 2 * pairs || vhost_->runs(index) || !queues_[index].enabled() || events == nullptr) continue;
    const QueueConfig& config = queues_[index].config();
    const auto started = vhost_->start_ring(index,
                                            {.size = config.size,
                                             .descriptors = config.descriptors,
                                             .driver = config.driver,
                                             .device = config.device,
                                             .notifications = events->borrow_notifications(index),
                                             .interrupts = events->interrupts()},
                                            *memory_);
    if (started) {
      pass_on(index);  // what the driver has put there already
      continue;
    }
    events->give_back(index);
    log_warning("{}: {}", core_.end().description(), started.error().message);
  }
}

void VirtioNet::stop_ring(unsigned index) {
  if (!kernel_serves(index)) return;
  vhost_->stop_ring(index);
  host_->events()->give_back(index);
}

void VirtioNet::pass_on(unsigned index) {
  if (!kernel_serves(index)) return;
  const u64 one = 1;
  (void)!::write(host_->events()->borrow_notifications(index), &one, sizeof one);
}

}  // namespace bulkhead::device::virtio
