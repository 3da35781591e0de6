"""python-ldap (over libldap): reads a server and tasks as JSON, writes one answer per task."""
import base64, json, sys
import ldap, ldap.controls, ldap.modlist, ldap.schema, ldap.syncrepl
from ldap.controls import LDAPControl
from ldap.controls.libldap import SimplePagedResultsControl

job = json.load(sys.stdin)
connections = {}


def connect(who):
    key = json.dumps(who)
    if key not in connections:
        connection = ldap.initialize(job['url'])
        connection.set_option(ldap.OPT_X_TLS_CACERTFILE, job['caFile'])
        connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
        connection.set_option(ldap.OPT_REFERRALS, 0)
        connection.start_tls_s()
        if who != 'anonymous':
            connection.simple_bind_s(who[0], who[1])
        connections[key] = connection
    return connections[key]


class AnyControl(LDAPControl):
    def __init__(self, oid, critical, value):
        super().__init__(oid, critical, None)
        self.value = value

    def encodeControlValue(self):
        return self.value


class Raw(LDAPControl):
    """A response control as it came."""
    def decodeControlValue(self, encoded):
        self.raw = encoded


def decoded(entries):
    return [
        {'dn': dn, 'attributes': {name: [value.decode('utf-8') for value in values] for name, values in attributes.items()}}
        for dn, attributes in entries if dn is not None
    ]


def bytes_of(values):
    return [value.encode('utf-8') for value in values]


def report(controls):
    return [
        {'oid': one.controlType, 'value': base64.b64encode(one.raw).decode()} for one in controls or [] if getattr(one, 'raw', None) is not None
    ]


known = {oid: Raw for oid in ['1.3.6.1.1.13.1', '1.3.6.1.1.13.2', '1.2.840.113556.1.4.474']}


def finish(connection, number):
    _, entries, _, controls = connection.result3(number, all=1, resp_ctrl_classes=known)
    return entries, controls


def search(connection, step, controls, task):
    scopes = {'base': ldap.SCOPE_BASE, 'one': ldap.SCOPE_ONELEVEL, 'sub': ldap.SCOPE_SUBTREE}
    connection.deref = ldap.DEREF_ALWAYS if step.get('deref') else ldap.DEREF_NEVER
    paged = next((one for one in task['controls'] if one['kind'] == 'paged'), None)
    arguments = (step['base'], scopes[step.get('scope', 'sub')], step.get('filter', '(objectClass=*)'), step.get('attributes'), int(step.get('typesOnly', False)))
    if paged is None:
        entries, number = [], connection.search_ext(*arguments, serverctrls=controls, sizelimit=step.get('sizeLimit', 0))
        try:
            while True:
                kind, part, _, got = connection.result3(number, all=0, resp_ctrl_classes=known)
                if kind == ldap.RES_SEARCH_RESULT:
                    return {'code': 0, 'entries': decoded(entries), 'controls': report(got)}
                entries += part
        except ldap.LDAPError as error:
            return {**failure(error), 'entries': decoded(entries)}
    entries, pages, cookie = [], 0, ''
    while pages == 0 or cookie:
        control = SimplePagedResultsControl(paged.get('critical', False), paged['size'], cookie)
        number = connection.search_ext(*arguments, serverctrls=[control])
        _, part, _, got = connection.result3(number)
        pages += 1
        entries += part
        cookie = got[0].cookie
    return {'code': 0, 'entries': decoded(entries), 'pages': pages}


def perform(connection, task):
    step = task['step']
    controls = [
        AnyControl(one['oid'], one['critical'], None if one.get('value') is None else base64.b64decode(one['value']))
        for one in task['raw'] if one['oid'] != '1.2.840.113556.1.4.319'
    ]
    kinds = {'add': ldap.MOD_ADD, 'delete': ldap.MOD_DELETE, 'replace': ldap.MOD_REPLACE, 'increment': ldap.MOD_INCREMENT}
    if step['op'] == 'search':
        return search(connection, step, controls, task)
    if step['op'] == 'add':
        number = connection.add_ext(step['dn'], [(name, bytes_of(values)) for name, values in step['attributes'].items()], controls)
    elif step['op'] == 'modify':
        changes = [(kinds[one['kind']], one['attribute'], bytes_of(one['values']) or None) for one in step['changes']]
        number = connection.modify_ext(step['dn'], changes, controls)
    elif step['op'] == 'rename':
        number = connection.rename(step['dn'], step['newRdn'], step.get('newSuperior'), int(not step.get('keepOld', False)), controls)
    elif step['op'] == 'delete':
        number = connection.delete_ext(step['dn'], controls)
    elif step['op'] == 'compare':
        number = connection.compare_ext(step['dn'], step['attribute'], step['value'].encode('utf-8'), controls)
    elif step['op'] == 'whoami':
        return {'code': 0, 'value': connection.whoami_s(ldap.controls.RequestControlTuples(controls)) or 'anonymous'}
    elif step['op'] == 'password':
        number = connection.passwd(step.get('dn'), step.get('from'), step.get('to'), controls)
        _, made = connection.extop_result(number)
        return {'code': 0, 'value': 'made' if made else ''}
    elif step['op'] == 'extended':
        request = ldap.extop.ExtendedRequest(step['oid'], step['value'].encode() if 'value' in step else None)
        connection.extop_s(request, controls)
        return {'code': 0}
    _, got = finish(connection, number)
    return {'code': 0, 'controls': report(got)}


def failure(error):
    details = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return {
        'code': details.get('result', -1), 'matched': details.get('matched') or '', 'text': f"{type(error).__name__}: {details.get('info') or details.get('desc') or error}",
        'controls': [],
    }


def schema():
    """The subschema by the strict parser, and every definition in it that has a name."""
    connection = connect(job['admin'])
    dn = connection.search_subschemasubentry_s('o=mail')
    parsed = ldap.schema.SubSchema(connection.read_subschemasubentry_s(dn), check_uniqueness=2)
    found = {}
    for kind in [ldap.schema.AttributeType, ldap.schema.ObjectClass]:
        for oid in parsed.listall(kind):
            one = parsed.get_obj(kind, oid)
            if kind is ldap.schema.AttributeType:
                mirror = [one.oid, sorted(one.names), sorted(one.sup), one.equality, one.ordering, one.substr, one.syntax, one.single_value, one.no_user_mod, one.usage]
            else:
                mirror = [one.oid, sorted(one.names), sorted(one.sup), one.kind, sorted(one.must), sorted(one.may)]
            found[one.names[0] if one.names else oid] = mirror
    return {'definitions': found, 'errors': [str(one) for one in parsed.non_unique_oids]}


class Consumer(ldap.ldapobject.ReconnectLDAPObject, ldap.syncrepl.SyncreplConsumer):
    """python-ldap's RFC 4533 class, refreshOnly."""
    def __init__(self, *arguments):
        ldap.ldapobject.ReconnectLDAPObject.__init__(self, *arguments)
        self.content, self.cookie, self.present, self.present_done = {}, None, [], False

    def syncrepl_get_cookie(self):
        return self.cookie

    def syncrepl_set_cookie(self, cookie):
        self.cookie = cookie

    def syncrepl_entry(self, dn, attributes, uuid):
        self.content[uuid] = dn

    def syncrepl_delete(self, uuids):
        for uuid in uuids:
            self.content.pop(uuid, None)

    def syncrepl_present(self, uuids, refreshDeletes=False):
        if uuids is not None:
            self.present += uuids
        elif not refreshDeletes:
            self.content = {uuid: dn for uuid, dn in self.content.items() if uuid in self.present}


def follow(base):
    """The content below `base`, then what changed since, by cookie."""
    consumer = Consumer(job['url'])
    consumer.simple_bind_s(*job['admin'])
    writer = connect(job['admin'])

    def refresh():
        consumer.present = list()
        number = consumer.syncrepl_search(base, ldap.SCOPE_SUBTREE, mode='refreshOnly', filterstr='(objectClass=*)')
        while consumer.syncrepl_poll(msgid=number, all=1, timeout=10):
            pass
        return sorted(consumer.content.values())

    seen = [refresh()]
    writer.add_s(f'cn=followed,{base}', [('objectClass', [b'organizationalRole']), ('cn', [b'followed'])])
    seen.append(refresh())
    writer.rename_s(f'cn=followed,{base}', 'cn=renamed')
    seen.append(refresh())
    writer.delete_s(f'cn=renamed,{base}')
    seen.append(refresh())
    return seen


answers = []
for task in job['tasks']:
    try:
        answers.append(perform(connect(task['who']), task))
    except ldap.LDAPError as error:
        answers.append(failure(error))
json.dump({
    'answers': answers,
    'schema': schema() if job.get('schema') else None,
    'followed': follow(job['followBase']) if job.get('followBase') else None,
}, sys.stdout)
