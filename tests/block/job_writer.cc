// A guest whose every write is in a journal, and a job on its disk: to be killed at any moment, and then to be asked
// whether all is there that it had been promised.
//
//   job_writer write JOURNAL IMAGE SEED [KEY=VALUE...]   writes until it is killed; keys as of a job's request
//   job_writer verify JOURNAL RAW                        exit 0 if a raw copy of the disk holds what the journal wants
//
// The journal is a mapped file, so it outlives the process: of each block the number of the write that was begun last,
// of that which a flush had acknowledged last, and of the last write of zeroes.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <random>
#include <string>

#include "block/disk/open_disk.h"
#include "block/job/disk_jobs.h"

namespace {

using namespace bulkhead;
using namespace bulkhead::block;

constexpr u64 kBlock = 4096;
constexpr unsigned kWriters = 8;

struct Line {
  u32 begun, flushed, zeroed;
};
struct Journal {
  u32 pivoted, concluded, writes, flushes;  // of this run
  Line lines[];
};

Journal* open_journal(const char* path, u64 blocks) {
  const int fd = ::open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  const u64 bytes = sizeof(Journal) + blocks * sizeof(Line);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) return nullptr;
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  return at == MAP_FAILED ? nullptr : static_cast<Journal*>(at);
}

// Every eight bytes say which block and which write, so that no part of another one passes.
u64 stamp(u64 block, u32 number, u64 word) { return (block << 40) ^ (u64{number} << 9) ^ word ^ 0x5a00000000000000; }

struct Writer {
  Disk& disk;
  Journal& journal;
  std::vector<u32> acknowledged;
  u64 seed;
};

Task<void> write_for_ever(Writer* self, unsigned who) {
  std::mt19937_64 random{self->seed * kWriters + who};
  const u64 blocks = self->acknowledged.size();
  AlignedMemory memory{kBlock};
  while (true) {
    const u64 block = random() % (blocks / kWriters) * kWriters + who;
    Line& line = self->journal.lines[block];
    const u32 number = ++line.begun;
    IoStatus status;
    if (random() % 12 == 0) {
      line.zeroed = number;
      status = co_await self->disk.write_zeroes(block * kBlock, kBlock, WriteFlags::kMayUnmap);
    } else {
      for (u64 word = 0; word < kBlock / 8; ++word) {
        const u64 value = stamp(block, number, word);
        std::memcpy(memory.data() + word * 8, &value, 8);
      }
      const IoBuffer buffer = memory.buffer();
      status = co_await self->disk.write(block * kBlock, Buffers{&buffer, 1});
    }
    if (status != IoStatus::kOk) {
      std::fprintf(stderr, "writing: %s\n", std::string{text_of(status)}.c_str());
      ::_exit(2);
    }
    self->acknowledged[block] = number;
    ++self->journal.writes;
    if (random() % 64 == 0) {
      const std::vector<u32> promised = self->acknowledged;
      const IoStatus flushed = co_await self->disk.flush();
      if (flushed != IoStatus::kOk) ::_exit(2);
      for (u64 i = 0; i < blocks; ++i)
        self->journal.lines[i].flushed = std::max(self->journal.lines[i].flushed, promised[i]);
      ++self->journal.flushes;
    }
    if (random() % 4 == 0) co_await self->disk.executor().sleep_for(random() % 500'000);
  }
}

Result<JobRequest> job_of(const std::map<std::string, std::string>& keys) {
  JobRequest job;
  job.auto_complete = true;
  for (const auto& [key, value] : keys) {
    if (key == "kind") {
      BH_ASSIGN(job.kind, parse_job_kind(value));
    } else if (key == "sync") {
      BH_ASSIGN(job.sync, parse_job_sync(value));
    } else if (key == "speed") {
      BH_ASSIGN(job.speed, parse_amount(value));
    } else if (key == "existing") {
      job.existing = true;
    } else {
      (key == "target" ? job.target : key == "base" ? job.base : key == "top" ? job.top : job.bitmap) = value;
    }
  }
  return job;
}

int write(const char* journal_path, const char* image, u64 seed, const std::map<std::string, std::string>& keys) {
  auto disk = open_disk({.path = image, .format = "qcow2"});
  if (!disk) return std::fprintf(stderr, "%s\n", disk.error().message.c_str()), 2;
  const u64 blocks = (*disk)->size_bytes() / kBlock;
  Journal* const journal = open_journal(journal_path, blocks);
  if (journal == nullptr) return 2;
  journal->pivoted = journal->concluded = journal->writes = journal->flushes = 0;
  Writer writer{**disk, *journal, std::vector<u32>(blocks), seed};
  for (u64 i = 0; i < blocks; ++i) writer.acknowledged[i] = journal->lines[i].flushed;
  (*disk)->executor().run([&] {
    for (unsigned i = 0; i < kWriters; ++i) (*disk)->executor().spawn(write_for_ever(&writer, i));
  });
  DiskJobs jobs{**disk};
  jobs.set_on_change([&](const JobStatus& status) {
    if (status.pivoted) journal->pivoted = 1;
    if (status.state != JobState::kConcluded) return;
    journal->concluded = status.failed || status.cancelled ? 2 : 1;
    if (journal->concluded == 2) {
      std::fprintf(stderr, "job: %s\n", status.last_error.c_str());
      ::_exit(2);
    }
  });
  if (!keys.empty()) {
    auto request = job_of(keys);
    if (!request) return std::fprintf(stderr, "%s\n", request.error().message.c_str()), 2;
    const auto started = jobs.start(*request);
    if (!started) {
      std::fprintf(stderr, "%s\n", started.error().message.c_str());
      ::_exit(2);
    }
  }
  std::puts("started");
  std::fflush(stdout);
  while (true) ::pause();
}

int verify(const char* journal_path, const char* raw) {
  const int fd = ::open(raw, O_RDONLY | O_CLOEXEC);
  struct stat info{};
  if (fd < 0 || ::fstat(fd, &info) != 0) return 2;
  const u64 blocks = static_cast<u64>(info.st_size) / kBlock;
  const Journal* const journal = open_journal(journal_path, blocks);
  if (journal == nullptr) return 2;
  u64 words[kBlock / 8], lost = 0, promised = 0;
  for (u64 block = 0; block < blocks; ++block) {
    const Line& line = journal->lines[block];
    if (::pread(fd, words, kBlock, static_cast<off_t>(block * kBlock)) != static_cast<ssize_t>(kBlock)) return 2;
    promised += line.flushed != 0;
    bool zero = true, good = false;
    for (const u64 word : words) zero = zero && word == 0;
    // A block in flight may be half old and half new to nobody: 4 KiB are written at once or not at all here.
    if (zero)
      good = line.flushed == 0 || line.zeroed >= line.flushed;
    else
      for (u32 number = line.flushed; number <= line.begun && !good; ++number) {
        good = true;
        for (u64 word = 0; word < kBlock / 8 && good; ++word) good = words[word] == stamp(block, number, word);
      }
    if (good) continue;
    if (++lost <= 5) {
      const u64 number = ((words[0] ^ 0x5a00000000000000 ^ (block << 40)) >> 9);
      std::fprintf(stderr, "block %llu: write %llu is there, flushed %u, begun %u, zeroed %u\n",
                   static_cast<unsigned long long>(block), static_cast<unsigned long long>(number), line.flushed,
                   line.begun, line.zeroed);
    }
  }
  std::printf("%llu blocks promised, %llu lost; %u writes, %u flushes, job %u, pivoted %u\n",
              static_cast<unsigned long long>(promised), static_cast<unsigned long long>(lost), journal->writes,
              journal->flushes, journal->concluded, journal->pivoted);
  return lost == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 3 ? argv[1] : "";
  if (verb == "verify" && argc == 4) return verify(argv[2], argv[3]);
  if (verb != "write" || argc < 5) return std::fprintf(stderr, "usage: see the file's head\n"), 2;
  std::map<std::string, std::string> keys;
  for (int i = 5; i < argc; ++i) {
    const std::string text = argv[i];
    keys[text.substr(0, text.find('='))] = text.substr(text.find('=') + 1);
  }
  return write(argv[2], argv[3], std::stoull(argv[4]), keys);
}
