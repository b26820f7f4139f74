import { sleep, systemClock } from '../../kernel/clock.ts'
import { transportConformance } from '../../testing/conformance/index.ts'
import type { MemoryTransport } from './index.ts'
import { memoryBroker, memoryTransport } from './index.ts'

transportConformance({
  name: 'memory',
  leaseMs: 300,
  async open() {
    const broker = memoryBroker()
    const connect = () => memoryTransport({ broker })
    const transport = connect()
    return {
      transport,
      another: async () => connect(),
      async restartBroker() {
        broker.stop()
        await sleep(systemClock, 50)
        broker.start()
      },
      async crash(victim) {
        const cutOff = victim as MemoryTransport
        cutOff.disconnect()
        return async () => cutOff.reconnect()
      },
      async close() {
        await transport.close()
        broker.close()
      },
    }
  },
})
