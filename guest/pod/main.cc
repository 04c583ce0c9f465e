// The pod agent: started by the zone's first process as its command, with the shim at the other end of stdin and
// stdout.
#include <unistd.h>

#include "guest/pod/agent.h"

int main() {
  bulkhead::pod::Agent{}.run();
  sync();
  return 0;
}
