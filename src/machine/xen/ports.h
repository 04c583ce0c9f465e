// The zone's grants and event channels as split drivers see them.
#pragma once
#include "abi/xen/domain.h"
#include "device/xenbus/ports.h"

namespace bulkhead::machine {

class XenGrantPort final : public device::xenbus::GrantPort {
 public:
  explicit XenGrantPort(abi::xen::Domain& domain) : grants_{domain.grants()} {}
  std::byte* map(u32 reference, bool writable) override { return grants_.map(reference, writable); }
  void unmap(u32 reference, bool writable) override { grants_.unmap(reference, writable); }

 private:
  abi::xen::GrantHost& grants_;
};

class XenEventPort final : public device::xenbus::EventPort {
 public:
  explicit XenEventPort(abi::xen::Domain& domain) : events_{domain.events()} {}
  std::unique_ptr<device::xenbus::EventChannel> bind(u32 guest_port, std::function<void()> on_event) override {
    auto binding = events_.bind(guest_port, std::move(on_event));
    return binding == nullptr ? nullptr : std::make_unique<Channel>(std::move(binding));
  }

 private:
  struct Channel final : device::xenbus::EventChannel {
    explicit Channel(std::unique_ptr<abi::xen::EventHost::Binding> a_binding) : binding{std::move(a_binding)} {}
    void notify() override { binding->notify(); }
    std::unique_ptr<abi::xen::EventHost::Binding> binding;
  };
  abi::xen::EventHost& events_;
};

}  // namespace bulkhead::machine
