#include "device/xenbus/store/store.h"

#include "base/assert.h"
#include "device/xenbus/store/session.h"

namespace bulkhead::device::xenbus::store {

Store::Store(Limits limits)
    : limits_{limits},
      counters_{{"xenstore_requests", "xenstore_errors", "xenstore_refused_access", "xenstore_refused_limit",
                 "xenstore_transactions", "xenstore_conflicts", "xenstore_events", "xenstore_events_merged",
                 "xenstore_events_collapsed", "xenstore_stalls", "xenstore_protocol_errors",
                 "xenstore_reconnections"}} {
  BH_ASSERT(counters_.size() == static_cast<std::size_t>(Count::kCount));
}

Store::~Store() { BH_ASSERT(state_.sessions.empty()); }

Store::Locked Store::enter(Domid who) {
  std::unique_lock lock{mutex_};
  if (who != kDomainZero) gate_.wait(lock, [this] { return holds_ == 0; });
  return {std::move(lock), state_};
}

std::unique_ptr<Session> Store::connect(Domid domain, WatchSink& sink) {
  std::unique_ptr<Session> session{new Session{*this, domain, sink}};
  enter(kDomainZero)->sessions.push_back(session.get());
  return session;
}

void Store::introduce(Domid domain) {
  const Locked state = enter(kDomainZero);
  if (state->introduced.insert(domain).second) tell_special(*state, "@introduceDomain");
}

void Store::release(Domid domain) {
  const Locked state = enter(kDomainZero);
  if (state->introduced.erase(domain) > 0) tell_special(*state, "@releaseDomain");
}

bool Store::is_introduced(Domid domain) {
  return domain == kDomainZero || enter(kDomainZero)->introduced.contains(domain);
}

Usage Store::usage(Domid domain) { return enter(kDomainZero)->accounts[domain]; }

void Store::tell(State& state, const Effect& effect) {
  for (Session* session : state.sessions) session->hear(state, effect);
}

void Store::tell_special(State& state, std::string_view name) {
  for (Session* session : state.sessions) session->hear_special(name);
}

Store::Hold::Hold(Store& store) : store_{store} {
  std::lock_guard lock{store_.mutex_};
  ++store_.holds_;
}

Store::Hold::~Hold() {
  {
    std::lock_guard lock{store_.mutex_};
    --store_.holds_;
  }
  store_.gate_.notify_all();
}

}  // namespace bulkhead::device::xenbus::store
