/**
 * The extended operation by which a Directory Server is asked for a copy of its database, in its own backup directory. For the right `admin`;
 * offered where the server's configuration names that directory. No value; the answer's value is the path of the copy, on the server.
 */

/** OID of the operation. */
export const backupOid = '2.25.11233386167282336856843219451289651251.3.1';
