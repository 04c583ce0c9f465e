// xenstore: a small tree of names and values by which a zone and the monitor tell each other what devices there are and
// how they stand [xenstore]. Fidelity: that of xenstored in Xen 4.17 for all that an ordinary domain can ask; no
// stub domains (SET_TARGET), no live update. Whoever uses it does so through a Session.
// Threads: any; one lock, held only while one request is answered, never while waiting.
#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string_view>
#include <vector>

#include "device/xenbus/store/change.h"
#include "device/xenbus/store/limits.h"
#include "device/xenbus/store/tree.h"
#include "device/xenbus/store/watch.h"
#include "telemetry/counter.h"

namespace bulkhead::device::xenbus::store {

class Session;

enum class Count : u8 {
  kRequests,         // from domains, over their rings
  kErrors,           // of these, answered with an error
  kRefusedAccess,    // EACCES and EPERM among them
  kRefusedLimit,     // ENOSPC and E2BIG among them
  kTransactions,     // committed
  kConflicts,        // EAGAIN
  kEvents,           // watch events put in a queue
  kEventsMerged,     // one just like it was waiting
  kEventsCollapsed,  // too many were waiting: told less exactly
  kStalls,           // no request read, because the domain does not take its replies or events
  kProtocolErrors,   // connections closed for nonsense in the ring
  kReconnections,    //
  kCount,
};

class Store {
 public:
  explicit Store(Limits limits = {});
  ~Store();  // all sessions have ended
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // `sink` outlives the session, the session not the store.
  std::unique_ptr<Session> connect(Domid domain, WatchSink& sink);

  // A domain has come or is gone: what IS_DOMAIN_INTRODUCED says, and the special watches. Its nodes stay.
  void introduce(Domid domain);
  void release(Domid domain);
  bool is_introduced(Domid domain);

  Usage usage(Domid domain);
  const Limits& limits() const { return limits_; }
  const telemetry::CounterSet& counters() const { return counters_; }
  void count(Count what) { counters_[static_cast<std::size_t>(what)].add(); }

  // While one exists, requests of all domains but 0 wait.
  class Hold {
   public:
    explicit Hold(Store& store);
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    Store& store_;
  };

 private:
  friend class Session;
  struct State {
    Tree tree;
    Accounts accounts;
    u64 generation = 0;
    std::vector<Session*> sessions;
    std::set<Domid> introduced;
  };
  class Locked {
   public:
    Locked(std::unique_lock<std::mutex> lock, State& state) : lock_{std::move(lock)}, state_{state} {}
    State* operator->() const { return &state_; }
    State& operator*() const { return state_; }

   private:
    std::unique_lock<std::mutex> lock_;
    State& state_;
  };
  Locked enter(Domid who);
  static void tell(State& state, const Effect& effect);
  static void tell_special(State& state, std::string_view name);

  const Limits limits_;
  telemetry::CounterSet counters_;
  std::mutex mutex_;
  std::condition_variable gate_;
  unsigned holds_ = 0;  // under mutex_
  State state_;         // under mutex_
};

}  // namespace bulkhead::device::xenbus::store
