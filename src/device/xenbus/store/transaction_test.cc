#include "device/xenbus/store/transaction.h"

#include <random>
#include <thread>

#include "device/xenbus/store/fixture.h"

namespace bulkhead::device::xenbus::store {
namespace {

using TransactionTest = StoreTest;

TEST_F(TransactionTest, NobodySeesItBeforeItIsCommitted) {
  const u32 t = guest->begin().value();
  EXPECT_TRUE(guest->write(t, "data/a", "1"));
  EXPECT_EQ(guest->read(t, "data/a"), "1");
  EXPECT_EQ(error_of(guest->read(0, "data/a")), "ENOENT");
  EXPECT_EQ(error_of(zero->read(0, kHome + "/data/a")), "ENOENT");
  EXPECT_TRUE(guest->end(t, true));
  EXPECT_EQ(zero->read(0, kHome + "/data/a"), "1");
  EXPECT_EQ(error_of(guest->read(t, "data/a")), "ENOENT");  // it is over
  EXPECT_EQ(error_of(guest->end(t, true)), "ENOENT");
}

TEST_F(TransactionTest, AbandonedItLeavesNothing) {
  const i64 before = store.usage(kGuest).nodes;
  const u32 t = guest->begin().value();
  EXPECT_TRUE(guest->write(t, "data/a", "1"));
  EXPECT_TRUE(guest->remove(t, "control/shutdown"));
  EXPECT_TRUE(guest->end(t, false));
  EXPECT_EQ(error_of(guest->read(0, "data/a")), "ENOENT");
  EXPECT_TRUE(guest->read(0, "control/shutdown"));
  EXPECT_EQ(store.usage(kGuest).nodes, before);
}

TEST_F(TransactionTest, ItReadsTheStoreAsItWas) {
  ASSERT_TRUE(guest->write(0, "data/a", "old"));
  const u32 t = guest->begin().value();
  ASSERT_TRUE(zero->write(0, kHome + "/data/a", "new"));
  EXPECT_EQ(guest->read(t, "data/a"), "old");
  EXPECT_EQ(error_of(guest->end(t, true)), "EAGAIN");
  EXPECT_EQ(count(Count::kConflicts), 1u);
}

TEST_F(TransactionTest, ChangesBesideItDoNotMatter) {
  const u32 t = guest->begin().value();
  ASSERT_TRUE(guest->write(t, "data/a", "1"));
  ASSERT_TRUE(zero->write(0, kHome + "/data/b", "2"));
  ASSERT_TRUE(zero->write(0, kHome + "/name", "other"));
  EXPECT_TRUE(guest->end(t, true));
  EXPECT_EQ(guest->list(0, "data")->names, (std::vector<std::string>{"a", "b"}));
}

struct Rival {
  const char* name;
  std::function<void(Session&, u32)> inside, outside;
};

TEST_F(TransactionTest, WhateverItReliedOnMustNotHaveChanged) {
  const std::string a = kHome + "/data/a";
  const Rival rivals[] = {
      {"read, written", [&](Session& s, u32 t) { (void)s.read(t, a); },
       [&](Session& s, u32) { (void)s.write(0, a, "x"); }},
      {"read, removed", [&](Session& s, u32 t) { (void)s.read(t, a); }, [&](Session& s, u32) { (void)s.remove(0, a); }},
      {"read, made again", [&](Session& s, u32 t) { (void)s.read(t, a); },
       [&](Session& s, u32) {
         (void)s.remove(0, a);
         (void)s.write(0, a, "1");
       }},
      {"listed, child made", [&](Session& s, u32 t) { (void)s.list(t, a); },
       [&](Session& s, u32) { (void)s.write(0, a + "/new", ""); }},
      {"listed, child removed", [&](Session& s, u32 t) { (void)s.list(t, a); },
       [&](Session& s, u32) { (void)s.remove(0, a + "/b"); }},
      {"absent, made", [&](Session& s, u32 t) { (void)s.read(t, a + "/no/thing"); },
       [&](Session& s, u32) { (void)s.write(0, a + "/no", ""); }},
      {"removed, changed deep below", [&](Session& s, u32 t) { (void)s.remove(t, a); },
       [&](Session& s, u32) { (void)s.write(0, a + "/b/c", "x"); }},
      {"written, written", [&](Session& s, u32 t) { (void)s.write(t, a, "y"); },
       [&](Session& s, u32) { (void)s.write(0, a, "x"); }},
      {"made below, its parent's permissions changed", [&](Session& s, u32 t) { (void)s.write(t, a + "/b/new", "y"); },
       [&](Session& s, u32) { (void)s.set_permissions(0, a + "/b", {{kDomainZero, Access::kNone}}); }},
      {"removed and made again, permissions above changed",
       [&](Session& s, u32 t) {
         (void)s.remove(t, a + "/b");
         (void)s.write(t, a + "/b", "mine");
       },
       [&](Session& s, u32) { (void)s.set_permissions(0, a, {{kDomainZero, Access::kNone}}); }},
  };
  for (const Rival& rival : rivals) {
    (void)zero->remove(0, a);
    ASSERT_TRUE(guest->write(0, "data/a/b/c", "1"));
    const u32 t = guest->begin().value();
    rival.inside(*guest, t);
    rival.outside(*zero, 0);
    EXPECT_EQ(error_of(guest->end(t, true)), "EAGAIN") << rival.name;
  }
}

TEST_F(TransactionTest, OnlyOneOfTwoThatCountWins) {
  ASSERT_TRUE(guest->write(0, "data/n", "0"));
  const u32 one = guest->begin().value(), two = guest->begin().value();
  EXPECT_NE(one, two);
  for (const u32 t : {one, two}) {
    ASSERT_EQ(guest->read(t, "data/n"), "0");
    ASSERT_TRUE(guest->write(t, "data/n", std::to_string(t)));
  }
  EXPECT_TRUE(guest->end(two, true));
  EXPECT_EQ(error_of(guest->end(one, true)), "EAGAIN");
  EXPECT_EQ(guest->read(0, "data/n"), std::to_string(two));
}

TEST_F(TransactionTest, RemovingAndMakingAgainKeepsItsOrder) {
  ASSERT_TRUE(guest->write(0, "data/a/old", "1"));
  const u32 t = guest->begin().value();
  ASSERT_TRUE(guest->write(t, "data/a", "first"));
  ASSERT_TRUE(guest->remove(t, "data/a"));
  ASSERT_TRUE(guest->write(t, "data/a", "second"));
  ASSERT_TRUE(guest->write(t, "data/a", "third"));
  ASSERT_TRUE(guest->end(t, true));
  EXPECT_EQ(guest->read(0, "data/a"), "third");
  EXPECT_TRUE(guest->list(0, "data/a")->names.empty());
}

TEST_F(TransactionTest, LeakedOnesRunOut) {
  for (unsigned i = 0; i < Limits{}.transactions; ++i) EXPECT_TRUE(guest->begin());
  EXPECT_EQ(error_of(guest->begin()), "ENOSPC");
  EXPECT_TRUE(other->begin());
  guest->reset();
  EXPECT_TRUE(guest->begin());
}

TEST_F(TransactionTest, IdsOfOthersAreNoneOfTheirs) {
  const u32 t = guest->begin().value();
  ASSERT_TRUE(guest->write(t, "data/secret", "1"));
  EXPECT_EQ(error_of(other->read(t, kHome + "/data/secret")), "ENOENT");
  EXPECT_EQ(error_of(other->end(t, true)), "ENOENT");
  EXPECT_TRUE(guest->end(t, true));
}

TEST_F(TransactionTest, RightsAreLookedAtInsideToo) {
  const u32 t = guest->begin().value();
  EXPECT_EQ(error_of(guest->write(t, "/local/domain/8/data", "x")), "EACCES");
  EXPECT_EQ(error_of(guest->write(t, "name", "x")), "EACCES");
  EXPECT_EQ(error_of(guest->read(t, "/vm/00000000-0000-0000-0000-000000000008/name")), "EACCES");
  EXPECT_TRUE(guest->end(t, true));
}

// A right that was taken away in the meantime cannot be used by committing late.
TEST_F(TransactionTest, RightsTakenAwayBeforeTheCommitAreGone) {
  const u32 t = guest->begin().value();
  ASSERT_TRUE(guest->write(t, "data/x", "late"));
  ASSERT_TRUE(zero->set_permissions(0, kHome + "/data", {{kDomainZero, Access::kNone}, {kGuest, Access::kRead}}));
  EXPECT_EQ(error_of(guest->end(t, true)), "EAGAIN");
  EXPECT_EQ(error_of(guest->read(0, "data/x")), "ENOENT");
}

TEST_F(TransactionTest, LimitsHoldAcrossSeveral) {
  std::vector<u32> open;
  const i64 before = store.usage(kGuest).nodes;
  for (int i = 0; i < 4; ++i) {
    open.push_back(guest->begin().value());
    for (int n = 0; n < 400; ++n)
      ASSERT_TRUE(guest->make_directory(open.back(), "data/t" + std::to_string(i) + "n" + std::to_string(n)));
  }
  unsigned committed = 0;
  for (const u32 t : open) {
    const Reply<> reply = guest->end(t, true);
    committed += reply.has_value();
    EXPECT_EQ(error_of(reply), reply ? "OK" : "ENOSPC");
  }
  EXPECT_EQ(committed, 2u);
  EXPECT_EQ(store.usage(kGuest).nodes, before + 800);
}

TEST_F(TransactionTest, OneCannotLookAtOrChangeWithoutEnd) {
  const u32 t = guest->begin().value();
  unsigned looked = 0;
  while (looked < 5000 && error_of(guest->read(t, "data/" + std::to_string(looked))) == "ENOENT") ++looked;
  EXPECT_LE(looked, Limits{}.transaction_nodes);
  EXPECT_EQ(error_of(guest->read(t, "data/x")), "ENOSPC");
  const u32 u = guest->begin().value();
  ASSERT_TRUE(guest->write(u, "data/same", ""));
  for (int i = 0; i < 5000; ++i) ASSERT_TRUE(guest->write(u, "data/same", std::to_string(i)));  // one change
  unsigned changed = 0;
  while (changed < 5000 && guest->write(u, "data/a", "") && guest->remove(u, "data/a")) ++changed;
  EXPECT_LE(changed, Limits{}.transaction_nodes);
  EXPECT_EQ(error_of(guest->end(t, true)), "OK");
}

TEST_F(TransactionTest, TheMemoryOfOpenOnesIsLimited) {
  for (int i = 0; i < 9; ++i) {
    const u32 t = guest->begin().value();
    for (int n = 0; n < 900; ++n)
      if (!guest->write(t, "data/" + std::string(1900, 'n') + std::to_string(n), std::string(2048, 'v'))) break;
  }
  const u32 t = guest->begin().value();
  EXPECT_EQ(error_of(guest->write(t, "data/x", std::string(2048, 'v'))), "ENOSPC");
  guest->reset();
  EXPECT_TRUE(guest->write(0, "data/x", std::string(2048, 'v')));
}

TEST_F(TransactionTest, ManyWritersLoseNothing) {
  ASSERT_TRUE(guest->write(0, "data/n", "0"));
  ASSERT_TRUE(guest->set_permissions(0, "data/n", {{kGuest, Access::kReadWrite}}));
  const auto count_up = [&](Session& session) {
    for (int i = 0; i < 200;) {
      const u32 t = session.begin().value();
      const int n = std::stoi(session.read(t, kHome + "/data/n").value());
      EXPECT_TRUE(session.write(t, kHome + "/data/n", std::to_string(n + 1)));
      if (session.end(t, true)) ++i;
    }
  };
  std::thread one{[&] { count_up(*guest); }}, two{[&] { count_up(*other); }}, three{[&] { count_up(*zero); }};
  one.join();
  two.join();
  three.join();
  EXPECT_EQ(guest->read(0, "data/n"), "600");
}

// Against a model: a transaction that commits has done the same as its steps done one after the other.
TEST_F(TransactionTest, RandomOnesDoWhatTheirStepsDo) {
  std::mt19937 random{5};
  const auto path = [&] {
    std::string at = "data";
    for (unsigned depth = 1 + random() % 3; depth > 0; --depth) at += '/' + std::string(1, "abc"[random() % 3]);
    return at;
  };
  for (int round = 0; round < 300; ++round) {
    const u32 t = guest->begin().value();
    for (int step = 0; step < 12; ++step) {
      const std::string here = path();
      // The other guest does outside, below its own home, what we do inside.
      const unsigned what = random() % 5;
      const std::string value = std::to_string(random() % 100);
      const auto do_one = [&](Session& session, u32 in) -> std::string {
        switch (what) {
          case 0:
          case 1:
            return error_of(session.write(in, here, value));
          case 2:
            return error_of(session.remove(in, here));
          case 3:
            return error_of(session.make_directory(in, here));
          default:
            return session.read(in, here).value_or("none");
        }
      };
      EXPECT_EQ(do_one(*guest, t), do_one(*other, 0));
    }
    ASSERT_TRUE(guest->end(t, true));
    const std::function<void(const std::string&)> same = [&](const std::string& at) {
      const auto names = guest->list(0, at)->names;
      EXPECT_EQ(names, other->list(0, at)->names);
      EXPECT_EQ(guest->read(0, at), other->read(0, at));
      for (const std::string& name : names) same(at + '/' + name);
    };
    same("data");
    EXPECT_EQ(store.usage(kGuest).nodes, store.usage(kOther).nodes);
    EXPECT_EQ(store.usage(kGuest).bytes, store.usage(kOther).bytes);
  }
}

}  // namespace
}  // namespace bulkhead::device::xenbus::store
