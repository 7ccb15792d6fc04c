declare module 'sodium-native' {
  const sodium: {
    crypto_box_SECRETKEYBYTES: number
    crypto_box_PUBLICKEYBYTES: number
    sodium_malloc(size: number): Buffer
    crypto_box_keypair(publicKey: Buffer, secretKey: Buffer): void
    crypto_box_seal_open(message: Buffer, sealed: Buffer, publicKey: Buffer, secretKey: Buffer): boolean
  }
  export default sodium
}
