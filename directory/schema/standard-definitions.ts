/**
 * Definitions of the standards, in the form of RFC 4512 §4.1: they are parsed at start, enforced, and shown in the subschema entry word
 * for word. RFC 4512 and 4519 (core), 4524 (cosine, what inetOrgPerson needs), 2798 (inetOrgPerson), 4523 (certificates), 4530 (entryUUID),
 * 5020 (entryDN), draft-behera-ldap-password-policy-10 (what the lockout keeps), and the operational attributes of OpenLDAP that RFC 4533 peers expect (entryCSN, contextCSN).
 */

const syntax = 'SYNTAX 1.3.6.1.4.1.1466.115.121.1';
const text = `EQUALITY caseIgnoreMatch SUBSTR caseIgnoreSubstringsMatch ${syntax}.15`;
const ia5 = `EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreIA5SubstringsMatch ${syntax}.26`;
const phone = `EQUALITY telephoneNumberMatch SUBSTR telephoneNumberSubstringsMatch ${syntax}.50`;
const digits = `EQUALITY numericStringMatch SUBSTR numericStringSubstringsMatch ${syntax}.36`;
const name = `EQUALITY distinguishedNameMatch ${syntax}.12`;
const time = `EQUALITY generalizedTimeMatch ORDERING generalizedTimeOrderingMatch ${syntax}.24 SINGLE-VALUE NO-USER-MODIFICATION USAGE directoryOperation`;
const who = `${name} SINGLE-VALUE NO-USER-MODIFICATION USAGE directoryOperation`;
const server = 'USAGE dSAOperation';
const description = 'USAGE directoryOperation';

/** Attribute types. */
export const standardAttributeTypes: readonly string[] = [
  `( 2.5.4.0 NAME 'objectClass' EQUALITY objectIdentifierMatch ${syntax}.38 )`,
  `( 2.5.21.9 NAME 'structuralObjectClass' EQUALITY objectIdentifierMatch ${syntax}.38 SINGLE-VALUE NO-USER-MODIFICATION USAGE directoryOperation )`,
  `( 2.5.18.1 NAME 'createTimestamp' ${time} )`,
  `( 2.5.18.2 NAME 'modifyTimestamp' ${time} )`,
  `( 2.5.18.3 NAME 'creatorsName' ${who} )`,
  `( 2.5.18.4 NAME 'modifiersName' ${who} )`,
  `( 2.5.18.9 NAME 'hasSubordinates' EQUALITY booleanMatch ${syntax}.7 SINGLE-VALUE NO-USER-MODIFICATION USAGE directoryOperation )`,
  `( 2.5.18.10 NAME 'subschemaSubentry' ${who} )`,
  `( 1.3.6.1.1.20 NAME 'entryDN' ${who} )`,
  `( 1.3.6.1.1.16.4 NAME 'entryUUID' EQUALITY UUIDMatch ORDERING UUIDOrderingMatch SYNTAX 1.3.6.1.1.16.1 SINGLE-VALUE NO-USER-MODIFICATION USAGE directoryOperation )`,
  `( 1.3.6.1.4.1.4203.666.1.7 NAME 'entryCSN' EQUALITY CSNMatch ORDERING CSNOrderingMatch SYNTAX 1.3.6.1.4.1.4203.666.11.2.1{64} SINGLE-VALUE NO-USER-MODIFICATION USAGE directoryOperation )`,
  `( 1.3.6.1.4.1.4203.666.1.25 NAME 'contextCSN' EQUALITY CSNMatch ORDERING CSNOrderingMatch SYNTAX 1.3.6.1.4.1.4203.666.11.2.1{64} NO-USER-MODIFICATION USAGE dSAOperation )`,
  `( 1.3.6.1.4.1.1466.101.120.5 NAME 'namingContexts' ${name} ${server} )`,
  `( 1.3.6.1.4.1.1466.101.120.6 NAME 'altServer' ${syntax}.26 ${server} )`,
  `( 1.3.6.1.4.1.1466.101.120.7 NAME 'supportedExtension' ${syntax}.38 ${server} )`,
  `( 1.3.6.1.4.1.1466.101.120.13 NAME 'supportedControl' ${syntax}.38 ${server} )`,
  `( 1.3.6.1.4.1.1466.101.120.14 NAME 'supportedSASLMechanisms' ${syntax}.15 ${server} )`,
  `( 1.3.6.1.4.1.1466.101.120.15 NAME 'supportedLDAPVersion' ${syntax}.27 ${server} )`,
  `( 1.3.6.1.4.1.4203.1.3.5 NAME 'supportedFeatures' EQUALITY objectIdentifierMatch ${syntax}.38 ${server} )`,
  `( 1.3.6.1.1.4 NAME 'vendorName' EQUALITY caseExactMatch ${syntax}.15 SINGLE-VALUE NO-USER-MODIFICATION ${server} )`,
  `( 1.3.6.1.1.5 NAME 'vendorVersion' EQUALITY caseExactMatch ${syntax}.15 SINGLE-VALUE NO-USER-MODIFICATION ${server} )`,
  `( 2.5.21.2 NAME 'dITContentRules' EQUALITY objectIdentifierFirstComponentMatch ${syntax}.16 ${description} )`,
  `( 2.5.21.4 NAME 'matchingRules' EQUALITY objectIdentifierFirstComponentMatch ${syntax}.30 ${description} )`,
  `( 2.5.21.5 NAME 'attributeTypes' EQUALITY objectIdentifierFirstComponentMatch ${syntax}.3 ${description} )`,
  `( 2.5.21.6 NAME 'objectClasses' EQUALITY objectIdentifierFirstComponentMatch ${syntax}.37 ${description} )`,
  `( 2.5.21.8 NAME 'matchingRuleUse' EQUALITY objectIdentifierFirstComponentMatch ${syntax}.31 ${description} )`,
  `( 1.3.6.1.4.1.1466.101.120.16 NAME 'ldapSyntaxes' EQUALITY objectIdentifierFirstComponentMatch ${syntax}.54 ${description} )`,
  `( 1.3.6.1.4.1.42.2.27.8.1.17 NAME 'pwdAccountLockedTime' EQUALITY generalizedTimeMatch ORDERING generalizedTimeOrderingMatch ${syntax}.24 SINGLE-VALUE USAGE directoryOperation )`,
  `( 1.3.6.1.4.1.42.2.27.8.1.19 NAME 'pwdFailureTime' EQUALITY generalizedTimeMatch ORDERING generalizedTimeOrderingMatch ${syntax}.24 NO-USER-MODIFICATION USAGE directoryOperation )`,
  `( 1.3.6.1.4.1.42.2.27.8.1.22 NAME 'pwdReset' EQUALITY booleanMatch ${syntax}.7 SINGLE-VALUE USAGE directoryOperation )`,
  `( 2.5.4.41 NAME 'name' ${text}{32768} )`,
  `( 2.5.4.49 NAME 'distinguishedName' ${name} )`,
  `( 2.5.4.3 NAME ( 'cn' 'commonName' ) SUP name )`,
  `( 2.5.4.4 NAME ( 'sn' 'surname' ) SUP name )`,
  `( 2.5.4.5 NAME 'serialNumber' EQUALITY caseIgnoreMatch SUBSTR caseIgnoreSubstringsMatch ${syntax}.44{64} )`,
  `( 2.5.4.6 NAME ( 'c' 'countryName' ) SUP name ${syntax}.11 SINGLE-VALUE )`,
  `( 2.5.4.7 NAME ( 'l' 'localityName' ) SUP name )`,
  `( 2.5.4.8 NAME ( 'st' 'stateOrProvinceName' ) SUP name )`,
  `( 2.5.4.9 NAME ( 'street' 'streetAddress' ) ${text}{128} )`,
  `( 2.5.4.10 NAME ( 'o' 'organizationName' ) SUP name )`,
  `( 2.5.4.11 NAME ( 'ou' 'organizationalUnitName' ) SUP name )`,
  `( 2.5.4.12 NAME 'title' SUP name )`,
  `( 2.5.4.13 NAME 'description' ${text}{1024} )`,
  `( 2.5.4.15 NAME 'businessCategory' ${text}{128} )`,
  `( 2.5.4.16 NAME 'postalAddress' EQUALITY caseIgnoreListMatch SUBSTR caseIgnoreListSubstringsMatch ${syntax}.41 )`,
  `( 2.5.4.17 NAME 'postalCode' ${text}{40} )`,
  `( 2.5.4.18 NAME 'postOfficeBox' ${text}{40} )`,
  `( 2.5.4.19 NAME 'physicalDeliveryOfficeName' ${text}{128} )`,
  `( 2.5.4.20 NAME 'telephoneNumber' ${phone}{32} )`,
  `( 2.5.4.23 NAME ( 'facsimileTelephoneNumber' 'fax' ) ${syntax}.22 )`,
  `( 2.5.4.24 NAME 'x121Address' ${digits}{15} )`,
  `( 2.5.4.25 NAME 'internationaliSDNNumber' ${digits}{16} )`,
  `( 2.5.4.26 NAME 'registeredAddress' SUP postalAddress ${syntax}.41 )`,
  `( 2.5.4.27 NAME 'destinationIndicator' EQUALITY caseIgnoreMatch SUBSTR caseIgnoreSubstringsMatch ${syntax}.44{128} )`,
  `( 2.5.4.31 NAME 'member' SUP distinguishedName )`,
  `( 2.5.4.32 NAME 'owner' SUP distinguishedName )`,
  `( 2.5.4.33 NAME 'roleOccupant' SUP distinguishedName )`,
  `( 2.5.4.34 NAME 'seeAlso' SUP distinguishedName )`,
  `( 2.5.4.35 NAME 'userPassword' EQUALITY octetStringMatch ${syntax}.40{128} )`,
  `( 2.5.4.36 NAME 'userCertificate' EQUALITY octetStringMatch ${syntax}.8 )`,
  `( 2.5.4.42 NAME ( 'givenName' 'gn' ) SUP name )`,
  `( 2.5.4.43 NAME 'initials' SUP name )`,
  `( 2.5.4.44 NAME 'generationQualifier' SUP name )`,
  `( 2.5.4.45 NAME 'x500UniqueIdentifier' EQUALITY octetStringMatch ${syntax}.6 )`,
  `( 2.5.4.46 NAME 'dnQualifier' EQUALITY caseIgnoreMatch ORDERING caseIgnoreOrderingMatch SUBSTR caseIgnoreSubstringsMatch ${syntax}.44 )`,
  `( 0.9.2342.19200300.100.1.1 NAME ( 'uid' 'userid' ) ${text}{256} )`,
  `( 0.9.2342.19200300.100.1.3 NAME ( 'mail' 'rfc822Mailbox' ) ${ia5}{256} )`,
  `( 0.9.2342.19200300.100.1.6 NAME 'roomNumber' ${text}{256} )`,
  `( 0.9.2342.19200300.100.1.7 NAME 'photo' ${syntax}.23{25000} )`,
  `( 0.9.2342.19200300.100.1.10 NAME 'manager' ${name} )`,
  `( 0.9.2342.19200300.100.1.20 NAME ( 'homePhone' 'homeTelephoneNumber' ) ${phone} )`,
  `( 0.9.2342.19200300.100.1.21 NAME 'secretary' ${name} )`,
  `( 0.9.2342.19200300.100.1.25 NAME ( 'dc' 'domainComponent' ) ${ia5} SINGLE-VALUE )`,
  `( 0.9.2342.19200300.100.1.39 NAME 'homePostalAddress' EQUALITY caseIgnoreListMatch SUBSTR caseIgnoreListSubstringsMatch ${syntax}.41 )`,
  `( 0.9.2342.19200300.100.1.41 NAME ( 'mobile' 'mobileTelephoneNumber' ) ${phone} )`,
  `( 0.9.2342.19200300.100.1.42 NAME ( 'pager' 'pagerTelephoneNumber' ) ${phone} )`,
  `( 0.9.2342.19200300.100.1.55 NAME 'audio' ${syntax}.40{250000} )`,
  `( 0.9.2342.19200300.100.1.60 NAME 'jpegPhoto' ${syntax}.28 )`,
  `( 1.3.6.1.4.1.250.1.57 NAME 'labeledURI' EQUALITY caseExactMatch SUBSTR caseExactSubstringsMatch ${syntax}.15 )`,
  `( 2.16.840.1.113730.3.1.1 NAME 'carLicense' ${text} )`,
  `( 2.16.840.1.113730.3.1.2 NAME 'departmentNumber' ${text} )`,
  `( 2.16.840.1.113730.3.1.3 NAME 'employeeNumber' ${text} SINGLE-VALUE )`,
  `( 2.16.840.1.113730.3.1.4 NAME 'employeeType' ${text} )`,
  `( 2.16.840.1.113730.3.1.39 NAME 'preferredLanguage' ${text} SINGLE-VALUE )`,
  `( 2.16.840.1.113730.3.1.40 NAME 'userSMIMECertificate' ${syntax}.5 )`,
  `( 2.16.840.1.113730.3.1.216 NAME 'userPKCS12' ${syntax}.5 )`,
  `( 2.16.840.1.113730.3.1.241 NAME 'displayName' ${text} SINGLE-VALUE )`,
];

const post =
  'street $ postOfficeBox $ postalCode $ postalAddress $ physicalDeliveryOfficeName $ st $ l $ x121Address $ registeredAddress $ destinationIndicator $ telephoneNumber $ internationaliSDNNumber $ facsimileTelephoneNumber';

/** Object classes. */
export const standardObjectClasses: readonly string[] = [
  `( 2.5.6.0 NAME 'top' ABSTRACT MUST objectClass )`,
  `( 2.5.20.1 NAME 'subschema' AUXILIARY MAY ( dITContentRules $ objectClasses $ attributeTypes $ matchingRules $ matchingRuleUse ) )`,
  `( 2.5.17.0 NAME 'subentry' SUP top STRUCTURAL MUST cn )`,
  `( 1.3.6.1.4.1.1466.101.120.111 NAME 'extensibleObject' SUP top AUXILIARY )`,
  `( 2.5.6.3 NAME 'locality' SUP top STRUCTURAL MAY ( street $ seeAlso $ st $ l $ description ) )`,
  `( 2.5.6.4 NAME 'organization' SUP top STRUCTURAL MUST o MAY ( userPassword $ seeAlso $ businessCategory $ description $ ${post} ) )`,
  `( 2.5.6.5 NAME 'organizationalUnit' SUP top STRUCTURAL MUST ou MAY ( userPassword $ seeAlso $ businessCategory $ description $ ${post} ) )`,
  `( 2.5.6.6 NAME 'person' SUP top STRUCTURAL MUST ( sn $ cn ) MAY ( userPassword $ telephoneNumber $ seeAlso $ description ) )`,
  `( 2.5.6.7 NAME 'organizationalPerson' SUP person STRUCTURAL MAY ( title $ ou $ ${post} ) )`,
  `( 2.5.6.8 NAME 'organizationalRole' SUP top STRUCTURAL MUST cn MAY ( seeAlso $ roleOccupant $ ou $ description $ ${post} ) )`,
  `( 2.5.6.9 NAME 'groupOfNames' SUP top STRUCTURAL MUST ( member $ cn ) MAY ( businessCategory $ seeAlso $ owner $ ou $ o $ description ) )`,
  `( 1.3.6.1.4.1.1466.344 NAME 'dcObject' SUP top AUXILIARY MUST dc )`,
  `( 0.9.2342.19200300.100.4.13 NAME 'domain' SUP top STRUCTURAL MUST dc MAY ( userPassword $ seeAlso $ businessCategory $ o $ description $ ${post} ) )`,
  `( 0.9.2342.19200300.100.4.19 NAME 'simpleSecurityObject' SUP top AUXILIARY MUST userPassword )`,
  `( 2.16.840.1.113730.3.2.2 NAME 'inetOrgPerson' SUP organizationalPerson STRUCTURAL MAY ( audio $ businessCategory $ carLicense $ departmentNumber $ displayName $ employeeNumber $ employeeType $ givenName $ homePhone $ homePostalAddress $ initials $ jpegPhoto $ labeledURI $ mail $ manager $ mobile $ o $ pager $ photo $ roomNumber $ secretary $ uid $ userCertificate $ x500UniqueIdentifier $ preferredLanguage $ userSMIMECertificate $ userPKCS12 ) )`,
];
