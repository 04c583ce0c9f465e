#include "device/xenbus/store/setup_domain.h"

#include <algorithm>

#include "base/assert.h"
#include "device/xenbus/store/path.h"
#include "device/xenbus/store/session.h"

namespace bulkhead::device::xenbus::store {
namespace {

class NoSink final : public WatchSink {
  void watch_event(const WatchRef&, std::string_view) override {}
  void watch_removed(const WatchRef&) override {}
};

// Writes below one path, with one of the three permissions that xl uses.
class Writer {
 public:
  Writer(Session& session, u32 transaction, Domid guest)
      : session_{session},
        transaction_{transaction},
        hidden_{{kDomainZero, Access::kNone}},
        read_{{kDomainZero, Access::kNone}, {guest, Access::kRead}},
        owned_{{guest, Access::kNone}} {}
  void hidden(const std::string& path, std::string_view value = {}) { write(path, value, hidden_); }
  void read(const std::string& path, std::string_view value = {}) { write(path, value, read_); }
  void owned(const std::string& path, std::string_view value = {}) { write(path, value, owned_); }
  void write(const std::string& path, std::string_view value, const Permissions& permissions) {
    failed_ |= !session_.write(transaction_, path, value, &permissions);
  }
  bool failed() const { return failed_; }

 private:
  Session& session_;
  const u32 transaction_;
  const Permissions hidden_, read_, owned_;
  bool failed_ = false;
};

void write_platform(Writer& to) {
  to.hidden("/tool/xenstored");
  const std::string home = home_of(kDomainZero);
  to.hidden(home + "/domid", "0");
  to.hidden(home + "/name", "Domain-0");
  for (const char* feature : {"poweroff", "reboot", "suspend"}) to.hidden(home + "/control/feature-" + feature, "1");
}

void write_vm(Writer& to, const DomainDescription& domain) {
  const std::string vm = "/vm/" + domain.uuid;
  to.read(vm);
  to.read(vm + "/name", domain.name);
  to.read(vm + "/uuid", domain.uuid);
  if (domain.type != "pv") return;
  to.read(vm + "/image");
  to.read(vm + "/image/ostype", "linux");
  to.read(vm + "/image/kernel", domain.kernel);
  to.read(vm + "/image/ramdisk", domain.ramdisk);
  to.read(vm + "/image/cmdline", domain.command_line);
}

void write_identity(Writer& to, const DomainDescription& domain, const std::string& home) {
  to.read(home);
  to.read(home + "/vm", "/vm/" + domain.uuid);
  to.read(home + "/name", domain.name);
  to.read(home + "/domid", std::to_string(domain.domain));
  to.hidden("/libxl/" + std::to_string(domain.domain) + "/type", domain.type);
}

void write_resources(Writer& to, const DomainDescription& domain, const std::string& home) {
  to.read(home + "/cpu");
  for (unsigned cpu = 0; cpu < std::max(domain.vcpus, domain.maximum_vcpus); ++cpu) {
    const std::string here = home + "/cpu/" + std::to_string(cpu);
    to.read(here);
    to.read(here + "/availability", cpu < domain.vcpus ? "online" : "offline");
  }
  to.read(home + "/memory");
  to.read(home + "/memory/static-max", std::to_string(std::max(domain.memory_kib, domain.maximum_kib)));
  to.read(home + "/memory/target", std::to_string(domain.memory_kib));
  to.read(home + "/memory/videoram", "0");
}

void write_control(Writer& to, const std::string& home) {
  to.read(home + "/device");
  to.read(home + "/device/suspend");
  to.owned(home + "/device/suspend/event-channel");
  to.read(home + "/control");
  for (const char* node : {"shutdown", "feature-poweroff", "feature-reboot", "feature-suspend", "sysrq"})
    to.owned(home + "/control/" + node);
  to.read(home + "/control/platform-feature-multiprocessor-suspend", "1");
  to.read(home + "/control/platform-feature-xs_reset_watches", "1");
  for (const char* node : {"data", "drivers", "feature", "attr", "error"}) to.owned(home + '/' + node);
}

void write_ring(Writer& to, const std::string& at, const RingPlace& ring) {
  to.read(at);
  to.read(at + "/port", std::to_string(ring.port));
  to.read(at + "/ring-ref", std::to_string(ring.frame));
}

void write_console(Writer& to, const DomainDescription& domain, const std::string& home) {
  const std::string id = std::to_string(domain.domain), front = home + "/console";
  const std::string back = home_of(kDomainZero) + "/backend/console/" + id + "/0";
  write_ring(to, front, *domain.console);
  to.read(front + "/backend", back);
  to.write(front + "/backend-id", "0", {{domain.domain, Access::kNone}, {kDomainZero, Access::kRead}});
  to.read(front + "/limit", "1048576");
  to.read(front + "/type", "xenconsoled");
  to.read(front + "/output", "pty");
  to.read(back);
  to.read(back + "/frontend", front);
  to.read(back + "/frontend-id", id);
  to.read(back + "/online", "1");
  to.read(back + "/state", "1");
  to.read(back + "/protocol", "vt100");
}

}  // namespace

Result<void> setup_domain(Store& store, const DomainDescription& domain) {
  NoSink sink;
  const std::unique_ptr<Session> session = store.connect(kDomainZero, sink);
  const std::string home = home_of(domain.domain);
  if (session->permissions(0, home))
    return fail("xenstore: domain {} is there already: give the zone another", domain.domain);
  for (;;) {
    const u32 transaction = session->begin().value();
    Writer to{*session, transaction, domain.domain};
    write_platform(to);
    write_vm(to, domain);
    write_identity(to, domain, home);
    write_resources(to, domain, home);
    write_control(to, home);
    if (domain.store) write_ring(to, home + "/store", *domain.store);
    if (domain.console) write_console(to, domain, home);
    if (to.failed()) {
      (void)session->end(transaction, false);
      return fail("xenstore: \"{}\" cannot be part of a path: use a UUID of hexadecimal digits and '-'", domain.uuid);
    }
    if (session->end(transaction, true)) return {};
  }
}

void remove_domain(Store& store, const DomainDescription& domain) {
  NoSink sink;
  const std::unique_ptr<Session> session = store.connect(kDomainZero, sink);
  const std::string id = std::to_string(domain.domain), backends = home_of(kDomainZero) + "/backend";
  if (const Reply<Session::Listing> kinds = session->list(0, backends))
    for (const std::string& kind : kinds->names) (void)session->remove(0, backends + '/' + kind + '/' + id);
  for (const std::string& path : {home_of(domain.domain), "/vm/" + domain.uuid, "/libxl/" + id})
    (void)session->remove(0, path);
}

}  // namespace bulkhead::device::xenbus::store
