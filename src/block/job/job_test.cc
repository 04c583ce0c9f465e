// Jobs on a disk that a guest goes on changing: at the end both the disk and the job's files hold what they must.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "block/debug/debug_node.h"
#include "block/disk/open_disk.h"
#include "block/job/disk_jobs.h"
#include "block/tools/edit.h"

namespace bulkhead::block {
namespace {

namespace fs = std::filesystem;
constexpr u64 kSize = 24_MiB;
constexpr Nanoseconds kLook = 1'000'000;

// A guest that writes what it remembers: 4 KiB blocks, some of zeroes, some discarded and then written again.
class Guest {
 public:
  explicit Guest(Disk& disk) : disk_{disk}, content_(disk.size_bytes()) {}
  void learn() { ASSERT_EQ(read_all(content_), IoStatus::kOk); }
  void begin(unsigned writers = 4) {
    disk_.executor().run([&] {
      running_ = writers;
      stop_ = false;
      for (unsigned i = 0; i < writers; ++i) disk_.executor().spawn(write_some(i, writers));
    });
  }
  void end() {
    stop_ = true;
    while (running_ != 0) std::this_thread::yield();
    ASSERT_EQ(failures_, 0u);
  }
  IoStatus read_all(std::vector<std::byte>& to) {
    const IoBuffer buffer{to.data(), to.size()};
    return disk_.executor().run(disk_.read(0, Buffers{&buffer, 1}));
  }
  void judge() {
    std::vector<std::byte> now(content_.size());
    ASSERT_EQ(read_all(now), IoStatus::kOk);
    const auto differs = std::ranges::mismatch(now, content_).in1;
    ASSERT_TRUE(differs == now.end()) << "at byte " << differs - now.begin();
  }
  const std::vector<std::byte>& content() const { return content_; }
  u64 done() const { return done_; }

 private:
  Task<void> write_some(unsigned who, unsigned writers) {
    std::mt19937 random{who + 17};
    AlignedMemory memory{64_KiB};
    while (!stop_) {
      // Each writer has blocks of its own, so that what the last one was is known.
      const u64 length = random() % 8 == 0 ? 64_KiB : 4_KiB;
      const u64 places = content_.size() / 64_KiB / writers,
                at = (random() % places * writers + who) * 64_KiB + (length == 4_KiB ? random() % 16 * 4_KiB : 0);
      const unsigned what = random() % 10;
      const std::byte value{static_cast<u8>(random() % 255 + 1)};
      IoStatus status;
      if (what == 0) {
        status = co_await disk_.write_zeroes(at, length, WriteFlags::kMayUnmap);
      } else if (what == 1) {
        status = co_await disk_.discard(at, length);
        if (status == IoStatus::kOk) status = co_await disk_.write_zeroes(at, length);
      } else {
        std::memset(memory.data(), static_cast<int>(value), length);
        const IoBuffer buffer{memory.data(), length};
        status = co_await disk_.write(at, Buffers{&buffer, 1});
      }
      if (status != IoStatus::kOk) ++failures_;
      std::memset(&content_[at], what < 2 ? 0 : static_cast<int>(value), length);
      ++done_;
      co_await disk_.executor().sleep_for(100'000);
    }
    --running_;
  }
  Disk& disk_;
  std::vector<std::byte> content_;
  std::atomic<unsigned> running_{0};
  std::atomic<bool> stop_{false};
  std::atomic<u64> failures_{0}, done_{0};
};

class JobTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/bulkhead-job-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string path(const char* name) const { return folder_ + "/" + name; }

  // A chain base.qcow2 <- mid.qcow2 <- top.qcow2, each with something of its own.
  void make_chain(u64 base_size = kSize) {
    auto session = tools::Session::create();
    ASSERT_TRUE(session);
    const char* below = nullptr;
    unsigned seed = 1;
    for (const char* name : {"base.qcow2", "mid.qcow2", "top.qcow2"}) {
      tools::NewImage image{.path = path(name), .format = "qcow2", .options = {}};
      image.options.size = below == nullptr ? base_size : kSize;
      if (below != nullptr) image.options.backing_file = below, image.options.backing_format = "qcow2";
      ASSERT_TRUE(tools::create_image(**session, image));
      auto node = (*session)->open({.path = image.path, .format = "qcow2", .access = DiskAccess::kReadWrite});
      ASSERT_TRUE(node) << node.error().message;
      std::mt19937 random{seed++};
      std::vector<std::byte> data(300_KiB + 512);
      for (unsigned i = 0; i < 12; ++i) {
        std::ranges::generate(data, [&] { return std::byte{static_cast<u8>(random())}; });
        const u64 at = random() % ((image.options.size - data.size()) / 512) * 512;
        ASSERT_EQ((*session)->run((*node)->write_bytes(at, data)), IoStatus::kOk);
      }
      // Zeroes over what is below.
      if (below == nullptr) {
        ASSERT_EQ((*session)->run((*node)->write_bytes(2_MiB, std::vector<std::byte>(2_MiB, std::byte{9}))),
                  IoStatus::kOk);
      } else {
        ASSERT_EQ((*session)->run((*node)->write_zeroes(2_MiB + 100_KiB, 700_KiB)), IoStatus::kOk);
      }
      ASSERT_TRUE((*session)->close(*node));
      below = name;
    }
  }
  void open(const char* name, DiskOptions options = {}) {
    auto disk = open_disk({.path = path(name), .options = options});
    ASSERT_TRUE(disk) << disk.error().message;
    disk_ = std::move(*disk);
    jobs_ = std::make_unique<DiskJobs>(*disk_);
    guest_ = std::make_unique<Guest>(*disk_);
    guest_->learn();
  }
  void close() {
    jobs_.reset();
    guest_.reset();
    disk_.reset();
  }
  // Lets the guest write for a while on what the job has left, judges it, and closes; what the disk must hold.
  std::vector<std::byte> end_after_more_writes() {
    const u64 before = guest_->done();
    while (guest_->done() < before + 100) std::this_thread::yield();
    guest_->end();
    guest_->judge();
    std::vector<std::byte> expected = guest_->content();
    close();
    return expected;
  }
  JobStatus status() const { return jobs_->list().back(); }
  JobStatus wait(JobState state) {
    JobStatus now;
    do {
      std::this_thread::sleep_for(std::chrono::nanoseconds{kLook});
      now = status();
    } while (now.state != state && now.state != JobState::kConcluded);
    return now;
  }
  JobStatus conclude() { return wait(JobState::kConcluded); }
  // The contents of an image that nobody uses.
  std::vector<std::byte> contents(const char* name, const char* format = "") {
    auto session = tools::Session::create();
    auto node = (*session)->open({.path = path(name), .format = format});
    EXPECT_TRUE(node) << node.error().message;
    if (!node) return {};
    std::vector<std::byte> out((*node)->size());
    EXPECT_EQ((*session)->run((*node)->read_bytes(0, out)), IoStatus::kOk);
    return out;
  }
  void expect_clean(const char* name) {
    auto session = tools::Session::create();
    auto node = (*session)->open({.path = path(name), .format = "qcow2", .no_backing = true});
    ASSERT_TRUE(node) << node.error().message;
    const auto result = (*session)->run(tools::as_qcow2(node->get())->check(qcow2::Repair::kNone));
    ASSERT_TRUE(result);
    EXPECT_EQ(result->corruptions + result->leaks + result->errors, 0u) << name;
  }
  std::string backing_of(const char* name) {
    auto session = tools::Session::create();
    auto node = (*session)->open({.path = path(name), .format = "qcow2", .no_backing = true});
    return tools::as_qcow2(node->get())->header().backing_file;
  }

  std::string folder_;
  std::unique_ptr<Disk> disk_;
  std::unique_ptr<DiskJobs> jobs_;
  std::unique_ptr<Guest> guest_;
};

TEST_F(JobTest, MirrorTakesOverWhileTheGuestWrites) {
  for (const char* const name : {"copy.qcow2", "copy.raw"}) {
    for (const JobSync sync : {JobSync::kFull, JobSync::kTop}) {
      if (sync == JobSync::kTop && std::string_view{name} == "copy.raw") continue;
      fs::remove(path(name));
      make_chain();
      open("top.qcow2");
      guest_->begin();
      ASSERT_TRUE(jobs_->start({.kind = JobKind::kMirror, .target = path(name), .sync = sync}));
      const JobStatus ready = wait(JobState::kReady);
      EXPECT_EQ(ready.state, JobState::kReady) << ready.last_error;
      const u64 before = guest_->done();
      while (guest_->done() < before + 200) std::this_thread::yield();
      ASSERT_TRUE(jobs_->complete("mirror0"));
      const JobStatus end = conclude();
      EXPECT_TRUE(end.pivoted && !end.failed && !end.cancelled) << end.last_error;
      const u64 pivoted = guest_->done();
      while (guest_->done() < pivoted + 200) std::this_thread::yield();
      guest_->end();
      guest_->judge();
      EXPECT_EQ(disk_->root()->name(), path(name));
      const std::vector<std::byte> expected = guest_->content();
      close();
      EXPECT_TRUE(contents(name) == expected);
      if (std::string_view{name} == "copy.qcow2") expect_clean(name);
      expect_clean("top.qcow2");
    }
  }
}

TEST_F(JobTest, CancelledMirrorLeavesTheDiskWhereItWas) {
  make_chain();
  open("top.qcow2");
  guest_->begin();
  ASSERT_TRUE(jobs_->start({.kind = JobKind::kMirror, .target = path("copy.qcow2"), .speed = 2_MiB}));
  EXPECT_FALSE(jobs_->complete("mirror0"));
  ASSERT_TRUE(jobs_->pause("mirror0"));
  EXPECT_EQ(status().state, JobState::kPaused);
  const auto second = jobs_->start({.kind = JobKind::kStream});
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("mirror0"), std::string::npos);
  ASSERT_TRUE(jobs_->resume("mirror0"));
  ASSERT_TRUE(jobs_->cancel("mirror0"));
  EXPECT_TRUE(conclude().cancelled);
  guest_->end();
  guest_->judge();
  EXPECT_EQ(disk_->root()->name(), path("top.qcow2"));
  ASSERT_TRUE(jobs_->dismiss("mirror0"));
  EXPECT_TRUE(jobs_->list().empty());
  const std::vector<std::byte> expected = guest_->content();
  close();
  EXPECT_TRUE(contents("top.qcow2") == expected);
  expect_clean("top.qcow2");
  expect_clean("copy.qcow2");
}

TEST_F(JobTest, BackupHoldsTheMomentItBegan) {
  for (const JobSync sync : {JobSync::kFull, JobSync::kTop}) {
    make_chain();
    fs::remove(path("copy.qcow2"));
    open("top.qcow2");
    const std::vector<std::byte> then = guest_->content();
    // The moment is when the job has the disk to itself: the guest begins only after that.
    ASSERT_TRUE(jobs_->start({.kind = JobKind::kBackup, .target = path("copy.qcow2"), .sync = sync, .speed = 30_MiB}));
    disk_->executor().run([] {});
    while (disk_->root()->driver() != "job" && status().state != JobState::kConcluded) std::this_thread::yield();
    guest_->begin();
    const JobStatus end = conclude();
    EXPECT_FALSE(end.failed || end.cancelled) << end.last_error;
    guest_->end();
    guest_->judge();
    close();
    EXPECT_TRUE(contents("copy.qcow2") == then);
    expect_clean("copy.qcow2");
    expect_clean("top.qcow2");
  }
}

TEST_F(JobTest, BackupOfWhatIsOverwritten) {
  make_chain();
  open("top.qcow2");
  const std::vector<std::byte> then = guest_->content();
  JobRequest request{.kind = JobKind::kBackup, .target = path("undo.qcow2"), .sync = JobSync::kNone};
  ASSERT_TRUE(jobs_->start(request));
  EXPECT_EQ(wait(JobState::kReady).state, JobState::kReady);
  guest_->begin();
  while (guest_->done() < 300) std::this_thread::yield();
  guest_->end();
  guest_->judge();
  ASSERT_TRUE(jobs_->complete("backup0"));
  const JobStatus end = conclude();
  EXPECT_FALSE(end.failed || end.cancelled || end.pivoted) << end.last_error;
  request.existing = true;
  EXPECT_FALSE(jobs_->start(request));
  const std::vector<std::byte> now = guest_->content();
  close();
  EXPECT_TRUE(contents("undo.qcow2") == then);
  EXPECT_TRUE(contents("top.qcow2") == now);
  EXPECT_NE(now, then);
  for (const char* const name : {"undo.qcow2", "top.qcow2"}) expect_clean(name);
}

// A disk whose images are encrypted: copies are, too, unless it is said that they need not be.
class SecretJobTest : public JobTest {
 protected:
  void make_secret(const char* name, const char* below = nullptr) {
    auto session = tools::Session::create();
    tools::NewImage image{.path = path(name), .format = "qcow2", .options = {}};
    image.options.size = 2_MiB;
    if (below != nullptr) image.options.backing_file = below, image.options.backing_format = "qcow2";
    image.key_file = key();
    image.key_time_ms = 1;
    ASSERT_TRUE(tools::create_image(**session, image));
    auto node = (*session)->open({.path = image.path,
                                  .format = "qcow2",
                                  .access = DiskAccess::kReadWrite,
                                  .options = tools::key_options(key(), key())});
    ASSERT_TRUE(node) << node.error().message;
    ASSERT_EQ((*session)->run((*node)->write_bytes(1_MiB, std::vector<std::byte>(300_KiB, std::byte{0x5e}))),
              IoStatus::kOk);
    ASSERT_TRUE((*session)->close(*node));
  }
  std::string key() {
    const std::string name = path("key");
    if (!fs::exists(name)) std::ofstream{name} << "a passphrase";
    return name;
  }
  void open_secret(const char* name) {
    auto disk = open_disk({.path = path(name), .key_file = key(), .backing_key_file = key()});
    ASSERT_TRUE(disk) << disk.error().message;
    disk_ = std::move(*disk);
    jobs_ = std::make_unique<DiskJobs>(*disk_);
    guest_ = std::make_unique<Guest>(*disk_);
    guest_->learn();
  }
  bool is_secret(const char* name) {
    std::ifstream in{path(name), std::ios::binary};
    const std::string all{std::istreambuf_iterator<char>{in}, {}};
    return !all.contains(std::string(64, 0x5e));
  }
};

TEST_F(SecretJobTest, TargetsAreEncryptedOrRefused) {
  make_secret("top.qcow2");
  open_secret("top.qcow2");
  const auto refusal = [&](JobRequest request) {
    const auto started = jobs_->start(std::move(request));
    return started ? std::string{} : started.error().message;
  };
  EXPECT_NE(refusal({.kind = JobKind::kBackup, .target = path("a.qcow2")}).find("--unencrypted"), std::string::npos);
  EXPECT_FALSE(fs::exists(path("a.qcow2")));
  EXPECT_NE(refusal({.kind = JobKind::kMirror, .target = path("a.raw"), .key_file = key()}).find("qcow2 target"),
            std::string::npos);
  std::ofstream{path("there.raw")} << std::string(2_MiB, 'x');
  EXPECT_NE(refusal({.kind = JobKind::kMirror, .target = path("there.raw"), .existing = true}).find("--unencrypted"),
            std::string::npos);
  ASSERT_TRUE(jobs_->start({.kind = JobKind::kBackup, .target = path("plain.raw"), .unencrypted = true}));
  EXPECT_FALSE(conclude().failed);
  EXPECT_FALSE(is_secret("plain.raw"));
  EXPECT_TRUE(contents("plain.raw", "raw") == guest_->content());
  ASSERT_TRUE(
      jobs_->start({.kind = JobKind::kBackup, .target = path("copy.qcow2"), .key_file = key(), .key_time_ms = 1}));
  EXPECT_FALSE(conclude().failed);
  EXPECT_NE(refusal({.kind = JobKind::kBackup, .target = path("copy.qcow2"), .existing = true}).find("key-file"),
            std::string::npos);
  guest_->begin();
  ASSERT_TRUE(jobs_->start({.kind = JobKind::kMirror,
                            .target = path("other.qcow2"),
                            .key_file = key(),
                            .key_time_ms = 1,
                            .auto_complete = true}));
  const JobStatus end = conclude();
  EXPECT_TRUE(end.pivoted) << end.last_error;
  const u64 before = guest_->done();
  while (guest_->done() < before + 50) std::this_thread::yield();
  guest_->end();
  guest_->judge();
  const std::vector<std::byte> now = guest_->content();
  close();
  open_secret("other.qcow2");
  EXPECT_TRUE(guest_->content() == now);
  close();
  for (const char* const name : {"copy.qcow2", "other.qcow2", "top.qcow2"}) {
    EXPECT_TRUE(is_secret(name)) << name;
    expect_clean(name);
  }
}

TEST_F(SecretJobTest, NothingSecretComesUpOrDownUnasked) {
  make_secret("base.qcow2");
  {
    auto session = tools::Session::create();
    tools::NewImage plain{.path = path("mid.qcow2"), .format = "qcow2", .options = {}};
    plain.options.size = 2_MiB;
    plain.options.backing_file = "base.qcow2";
    plain.options.backing_format = "qcow2";
    ASSERT_TRUE(tools::create_image(**session, plain));
  }
  make_secret("top.qcow2", "mid.qcow2");
  open_secret("top.qcow2");
  const auto commit = jobs_->start({.kind = JobKind::kCommit});
  ASSERT_FALSE(commit);
  EXPECT_NE(commit.error().message.find("--unencrypted"), std::string::npos);
  // Down into what is encrypted, and up into it, is no matter.
  ASSERT_TRUE(jobs_->start({.kind = JobKind::kCommit, .base = path("base.qcow2"), .auto_complete = true}));
  EXPECT_TRUE(conclude().pivoted);
  const std::vector<std::byte> now = guest_->content();
  close();
  open_secret("base.qcow2");
  EXPECT_TRUE(guest_->content() == now);
  close();
  open_secret("mid.qcow2");
  const auto stream = jobs_->start({.kind = JobKind::kStream});
  ASSERT_FALSE(stream);
  EXPECT_NE(stream.error().message.find("--unencrypted"), std::string::npos);
  ASSERT_TRUE(jobs_->start({.kind = JobKind::kStream, .unencrypted = true}));
  EXPECT_FALSE(conclude().failed);
  EXPECT_FALSE(is_secret("mid.qcow2"));
}

TEST_F(JobTest, BackupByBitmapIsWhatChangedSinceTheLast) {
  make_chain();
  {
    auto session = tools::Session::create();
    auto node = (*session)->open({.path = path("top.qcow2"), .format = "qcow2", .access = DiskAccess::kReadWrite});
    ASSERT_TRUE((*session)->run(tools::as_qcow2(node->get())->add_bitmap("changes", 65536, true)));
    ASSERT_TRUE((*session)->close(*node));
  }
  open("top.qcow2");
  JobRequest full{.kind = JobKind::kBackup, .target = path("copy.raw")};
  ASSERT_TRUE(jobs_->start(full));
  EXPECT_FALSE(conclude().failed);
  for (unsigned round = 0; round < 3; ++round) {
    guest_->begin();
    const u64 before = guest_->done();
    while (guest_->done() < before + 30) std::this_thread::yield();
    guest_->end();
    if (round == 1) {  // one that is cancelled loses nothing
      ASSERT_TRUE(jobs_->start({.kind = JobKind::kBackup,
                                .target = path("copy.raw"),
                                .existing = true,
                                .bitmap = "changes",
                                .speed = 64_KiB}));
      ASSERT_TRUE(jobs_->cancel(status().id));
      EXPECT_TRUE(conclude().cancelled);
    }
    ASSERT_TRUE(
        jobs_->start({.kind = JobKind::kBackup, .target = path("copy.raw"), .existing = true, .bitmap = "changes"}));
    const JobStatus end = conclude();
    EXPECT_FALSE(end.failed) << end.last_error;
    EXPECT_LT(end.total, kSize);
    EXPECT_TRUE(contents("copy.raw", "raw") == guest_->content()) << round;
  }
  EXPECT_FALSE(jobs_->start({.kind = JobKind::kBackup, .target = path("other"), .bitmap = "nothing"}));
}

TEST_F(JobTest, StreamFreesTheDiskOfWhatIsBelow) {
  for (const char* const base : {"", "base.qcow2"}) {
    make_chain(base[0] == 0 ? kSize : 10_MiB);
    open("top.qcow2");
    guest_->begin();
    ASSERT_TRUE(jobs_->start({.kind = JobKind::kStream, .base = base[0] == 0 ? "" : path(base), .speed = 50_MiB}));
    const JobStatus end = conclude();
    EXPECT_FALSE(end.failed || end.cancelled) << end.last_error;
    const std::vector<std::byte> expected = end_after_more_writes();
    EXPECT_EQ(backing_of("top.qcow2"), base);
    fs::remove(path("mid.qcow2"));
    EXPECT_TRUE(contents("top.qcow2") == expected);
    expect_clean("top.qcow2");
  }
}

TEST_F(JobTest, CommitOfTheDiskItself) {
  for (const char* const base : {"", "base.qcow2"}) {
    make_chain(10_MiB);
    open("top.qcow2");
    guest_->begin();
    ASSERT_TRUE(jobs_->start({.kind = JobKind::kCommit, .base = base[0] == 0 ? "" : path(base)}));
    const JobStatus ready = wait(JobState::kReady);
    EXPECT_EQ(ready.state, JobState::kReady) << ready.last_error;
    ASSERT_TRUE(jobs_->complete("commit0"));
    const JobStatus end = conclude();
    EXPECT_TRUE(end.pivoted) << end.last_error;
    const std::vector<std::byte> expected = end_after_more_writes();
    const char* const now = base[0] == 0 ? "mid.qcow2" : base;
    EXPECT_TRUE(contents(now) == expected);
    for (const char* const name : {"base.qcow2", now}) expect_clean(name);
  }
}

TEST_F(JobTest, CancelledCommitChangesNothingThatIsSeen) {
  make_chain(10_MiB);
  open("top.qcow2");
  guest_->begin();
  ASSERT_TRUE(jobs_->start({.kind = JobKind::kCommit, .base = path("base.qcow2"), .speed = 4_MiB}));
  while (status().done < 2_MiB) std::this_thread::yield();
  ASSERT_TRUE(jobs_->cancel("commit0"));
  EXPECT_TRUE(conclude().cancelled);
  guest_->end();
  guest_->judge();
  const std::vector<std::byte> expected = guest_->content();
  // The base is read-only again: another may read it beside us.
  EXPECT_EQ(contents("base.qcow2").size(), kSize);
  close();
  EXPECT_TRUE(contents("top.qcow2") == expected);
  for (const char* const name : {"base.qcow2", "mid.qcow2", "top.qcow2"}) expect_clean(name);
}

TEST_F(JobTest, CommitBelowTheDisk) {
  make_chain(10_MiB);
  open("top.qcow2");
  guest_->begin();
  ASSERT_TRUE(jobs_->start({.kind = JobKind::kCommit, .top = path("mid.qcow2")}));
  const JobStatus end = conclude();
  EXPECT_FALSE(end.failed) << end.last_error;
  guest_->end();
  guest_->judge();
  const std::vector<std::byte> expected = guest_->content();
  close();
  EXPECT_EQ(backing_of("top.qcow2"), "base.qcow2");
  fs::remove(path("mid.qcow2"));
  EXPECT_TRUE(contents("top.qcow2") == expected);
  for (const char* const name : {"base.qcow2", "top.qcow2"}) expect_clean(name);
}

TEST_F(JobTest, RefusalsSayWhy) {
  make_chain();
  open("top.qcow2");
  const auto refusal = [&](JobRequest request) {
    const auto started = jobs_->start(std::move(request));
    return started ? std::string{} : started.error().message;
  };
  EXPECT_NE(refusal({.kind = JobKind::kMirror}).find("target"), std::string::npos);
  EXPECT_NE(refusal({.kind = JobKind::kMirror, .target = path("mid.qcow2")}).find("there already"), std::string::npos);
  EXPECT_NE(refusal({.kind = JobKind::kMirror, .target = path("top.qcow2"), .existing = true}).find("in use"),
            std::string::npos);
  EXPECT_NE(refusal({.kind = JobKind::kMirror, .target = path("a.raw"), .sync = JobSync::kTop}).find("qcow2"),
            std::string::npos);
  EXPECT_NE(refusal({.kind = JobKind::kStream, .base = path("else.qcow2")}).find("mid.qcow2"), std::string::npos);
  EXPECT_NE(refusal({.kind = JobKind::kCommit, .top = path("base.qcow2")}).find("stands on no other"),
            std::string::npos);
  EXPECT_NE(jobs_->cancel("x").error().message.find("no job 'x'"), std::string::npos);
  // Somebody else reads the base: it cannot be written to.
  auto reader = open_disk({.path = path("base.qcow2"), .read_only = true});
  ASSERT_TRUE(reader);
  ASSERT_TRUE(jobs_->start({.kind = JobKind::kCommit, .base = path("base.qcow2")}));
  const JobStatus end = conclude();
  EXPECT_TRUE(end.failed);
  EXPECT_NE(end.last_error.find("in use"), std::string::npos) << end.last_error;
  guest_->begin();
  guest_->end();
  guest_->judge();
}

// The disk's own file gives errors where we say.
class JobErrorTest : public JobTest {
 protected:
  void open_faulty(std::vector<FaultRule> rules) {
    auto executor = Executor::create();
    ASSERT_TRUE(executor);
    Opener opener{**executor, builtin_formats()};
    OpenRequest request{.path = path("top.qcow2"), .format = "qcow2", .access = DiskAccess::kReadWrite};
    auto root = (*executor)->run(opener.open(request));
    ASSERT_TRUE(root);
    (*executor)->run([&] { faulty_ = std::make_shared<DebugNode>(*root, std::move(rules)); });
    auto disk = Disk::create(std::move(*executor), faulty_, {});
    ASSERT_TRUE(disk);
    disk_ = std::move(*disk);
    jobs_ = std::make_unique<DiskJobs>(*disk_);
  }
  void mend() {
    disk_->executor().run([&] { faulty_->set_rules({}); });
  }
  std::shared_ptr<DebugNode> faulty_;
};

TEST_F(JobErrorTest, ReportEndsTheJobStopWaitsIgnoreComesBack) {
  make_chain();
  const std::vector<FaultRule> bad = {
      {.kind = RequestKind::kRead, .begin = 0, .end = 24_MiB, .status = IoStatus::kIoError}};
  for (const JobErrorAction action : {JobErrorAction::kReport, JobErrorAction::kStop, JobErrorAction::kIgnore}) {
    open_faulty(bad);
    fs::remove(path("copy.raw"));
    ASSERT_TRUE(jobs_->start({.kind = JobKind::kBackup, .target = path("copy.raw"), .on_source_error = action}));
    if (action == JobErrorAction::kReport) {
      const JobStatus end = conclude();
      EXPECT_TRUE(end.failed);
      EXPECT_NE(end.last_error.find("reading"), std::string::npos) << end.last_error;
    } else {
      if (action == JobErrorAction::kStop) {
        EXPECT_EQ(wait(JobState::kStopped).state, JobState::kStopped);
      } else {
        while (status().errors < 20) std::this_thread::yield();
      }
      mend();
      if (action == JobErrorAction::kStop) {
        EXPECT_TRUE(jobs_->resume(status().id));
      }
      const JobStatus end = conclude();
      EXPECT_FALSE(end.failed) << end.last_error;
      EXPECT_GT(end.errors, 0u);
    }
    mend();
    jobs_.reset();
    faulty_.reset();
    disk_.reset();
    if (action == JobErrorAction::kReport) continue;
    EXPECT_TRUE(contents("copy.raw", "raw") == contents("top.qcow2"));
  }
}

}  // namespace
}  // namespace bulkhead::block
