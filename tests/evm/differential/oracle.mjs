// oracle.mjs - runs the same cases on @ethereumjs/evm (Shanghai), for ../differential.py.
//
//     node oracle.mjs MODULES CASES
//
// MODULES is the directory that holds node_modules, CASES a file with one JSON case per line: code,
// input (hex), gas (decimal string), storage (object of hex), value, balance, caller (hex), number.
// Prints one JSON result per line: status, gas_left, refund, output, storage, logs.
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import path from 'node:path'

const require = createRequire(path.resolve(process.argv[2], 'package.json'))
const { createEVM } = require('@ethereumjs/evm')
const { Common, Hardfork, Mainnet } = require('@ethereumjs/common')
const { SimpleStateManager } = require('@ethereumjs/statemanager')
const { Account, Address, bytesToHex, hexToBytes, setLengthLeft } = require('@ethereumjs/util')
const { keccak_256 } = require('@noble/hashes/sha3.js')

const statusOf = {
  'out of gas': 'out_of_gas',
  'stack underflow': 'stack_underflow',
  'stack overflow': 'stack_overflow',
  'invalid JUMP': 'bad_jump',
  'invalid opcode': 'invalid_opcode',
  'value out of range': 'return_data_out_of_bounds',
  revert: 'revert',
}

const word = (hex) => setLengthLeft(hexToBytes('0x' + (hex.length % 2 ? '0' : '') + hex), 32)
const number = (hex) => BigInt('0x' + hex)
const address = (v) => new Address(setLengthLeft(hexToBytes('0x' + v.toString(16).padStart(40, '0')), 20))
const blockchain = {
  getBlock: async (n) => ({ hash: () => keccak_256(word(BigInt(n).toString(16))) }),
  shallowCopy: () => blockchain,
}

async function run(c) {
  const common = new Common({ chain: Mainnet, hardfork: Hardfork.Shanghai })
  const stateManager = new SimpleStateManager({ common })
  const evm = await createEVM({ common, stateManager, blockchain, allowUnlimitedContractSize: true })
  const self = address(0xc0den)
  const caller = address(number(c.caller))
  await stateManager.putAccount(self, new Account(0n, number(c.balance)))
  const keys = new Set()
  const strip = (b) => {
    let i = 0
    while (i < b.length && b[i] === 0) i++
    return b.slice(i)
  }
  for (const [k, v] of Object.entries(c.storage)) {
    keys.add(bytesToHex(word(k)))
    await stateManager.putStorage(self, word(k), strip(word(v)))
  }
  stateManager.originalStorageCache?.clear()
  const put = stateManager.putStorage.bind(stateManager)
  stateManager.putStorage = async (a, k, v) => {
    keys.add(bytesToHex(k))
    return put(a, k, v)
  }
  evm.journal.addAlwaysWarmAddress(self.toString().slice(2))
  await evm.journal.checkpoint()
  const r = await evm.runCode({
    code: hexToBytes('0x' + c.code),
    data: hexToBytes('0x' + c.input),
    gasLimit: BigInt(c.gas),
    gasPrice: 10000000000n,
    value: number(c.value),
    to: self,
    caller,
    origin: caller,
    block: {
      header: {
        number: BigInt(c.number),
        coinbase: address(0xc01bba5en),
        timestamp: 1681338455n,
        difficulty: 0n,
        prevRandao: new Uint8Array(32).fill(0x2a),
        gasLimit: 30000000n,
        baseFeePerGas: 7000000000n,
        getBlobGasPrice: () => undefined,
      },
    },
  })
  const error = r.exceptionError?.error
  if (error) await evm.journal.revert()
  else await evm.journal.commit()
  const storage = {}
  for (const k of [...keys].sort()) {
    const v = await stateManager.getStorage(self, hexToBytes(k))
    if (v.some((b) => b !== 0)) storage[k] = bytesToHex(setLengthLeft(v, 32))
  }
  // the jump error carries its place: "invalid JUMP at hash/address:pc"
  const plain = error?.split(' at ')[0]
  const status = error === undefined ? 'success' : (statusOf[plain] ?? error)
  const failed = status !== 'success'
  return {
    status,
    gas_left: Number(BigInt(c.gas) - r.executionGasUsed),
    refund: failed ? 0 : Number(r.gasRefund ?? 0n),
    output: failed && status !== 'revert' ? '0x' : bytesToHex(r.returnValue),
    storage,
    logs: failed ? [] : (r.logs ?? []).map(([a, topics, data]) => ({
      address: bytesToHex(a), topics: topics.map((t) => bytesToHex(t)), data: bytesToHex(data),
    })),
  }
}

for (const line of readFileSync(process.argv[3], 'utf8').split('\n')) {
  if (line === '') continue
  let result
  try {
    result = await run(JSON.parse(line))
  } catch (error) {
    result = { status: 'oracle failed: ' + error.message }
  }
  process.stdout.write(JSON.stringify(result) + '\n')
}
